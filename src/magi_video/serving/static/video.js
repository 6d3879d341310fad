// Making a video: an order, its frames as they come, then the whole of it to watch and to take home.

import { ask, Beginnings, capital, fillChoices, find, Line, paceChoices, say, speedChoices, View } from "./common.js";

const WALK = "TURN_LEFT*10 MOVE_FORWARD+TURN_LEFT*12 ATTACK*6 TURN_RIGHT*14 MOVE_LEFT+TURN_RIGHT*14 ATTACK*4";
const ORDINALS = { 1: "next in line", 2: "second in line", 3: "third in line" };

export function setUpVideo(model) {
  const view = new View(find("video-view"), model.width, model.height);
  const beginnings = new Beginnings(find("video-begin"), model, (chosen) => {
    find("given-row").hidden = !(chosen.upload && beginnings.isClip);
    if (!video) preview();
  });
  const speaks = model.text && !model.text_problem;
  let line = null;
  let video = null; // token of the order
  let frames = []; // JPEG bytes
  let status = null;
  let playing = false;
  let timer = null;

  fillChoices(find("video-interval"), paceChoices(model), String(model.interval));
  fillChoices(find("video-speed"), speedChoices(model), "balanced");
  find("frames").max = model.max_frames;
  find("frames").value = Math.min(96, model.max_frames);
  setUpActions();
  if (model.classes.length) {
    find("class-row").hidden = false;
    fillChoices(find("class"), [["", "Any"], ...model.classes.map((name, index) => [String(index), name])], "");
  }
  setUpWords();
  find("frames").oninput = find("video-interval").onchange = tellLength;
  tellLength();
  preview();

  function setUpActions() {
    if (!model.actions.length) return;
    const choices = [["", "Whatever the model thinks of"], ["own", "My own actions…"]];
    const walks = WALK.split(/[ +]/).every((word) => model.actions.includes(word.split("*")[0]));
    if (walks) choices.unshift([WALK, "A walk with a look around"]);
    find("happens-row").hidden = false;
    fillChoices(find("happens"), choices, choices[0][0]);
    find("script").value = walks ? WALK : `${model.actions[0]}*20 NONE*5`;
    find("script-help").textContent = `Joined by +, repeated by *, over and over. There are ${model.actions.join(", ")} and NONE.`;
    find("happens").onchange = () => { find("script-row").hidden = find("happens").value !== "own"; };
  }

  function setUpWords() {
    find("text-row").hidden = !speaks;
    find("text-problem").hidden = !model.text_problem;
    find("text-problem").textContent = `No words can be given: ${model.text_problem}`;
    find("guidance-row").hidden = !speaks && !model.classes.length;
    find("text").maxLength = find("negative").maxLength = model.max_text;
    find("text").oninput = find("class").onchange = find("guidance").oninput = tellGuidance;
    tellGuidance();
  }

  // Guidance acts on the class and the words, so there must be some.
  function tellGuidance() {
    const control = find("text").value.trim() || find("class").value;
    const scale = Number(find("guidance").value);
    find("guidance").disabled = !control;
    const missing = `needs ${[...(speaks ? ["words"] : []), ...(model.classes.length ? ["a class"] : [])].join(" or ")}`;
    find("guidance-text").textContent = !control ? missing : scale === 1 ? "none" : `${scale}, takes twice as long`;
    find("negative-row").hidden = !speaks || !control || scale === 1;
  }

  function wordsAsked() {
    const [text, negative] = [find("text").value.trim(), find("negative").value.trim()];
    const asked = text ? { text } : {};
    if (!find("guidance").disabled) asked.guidance_scale = Number(find("guidance").value);
    if (negative && !find("negative-row").hidden) asked.negative_text = negative;
    return asked;
  }

  function tellLength() {
    const count = Number(find("frames").value);
    const seconds = (count * Number(find("video-interval").value)) / model.frame_rate;
    find("frames-text").textContent = `${count}, ${seconds.toFixed(1)} s`;
  }

  function preview() {
    const picture = beginnings.picture();
    if (!picture) return;
    if (picture.complete && picture.naturalWidth) view.draw(picture);
    else picture.addEventListener("load", () => video || view.draw(picture), { once: true });
  }

  find("dice").onclick = () => { find("seed").value = Math.floor(Math.random() * 2 ** 32); };

  find("order").onsubmit = async (event) => {
    event.preventDefault();
    say("");
    const happens = find("happens").value;
    const body = {
      ...beginnings.chosen(),
      frames: Number(find("frames").value),
      interval: Number(find("video-interval").value),
      speed: find("video-speed").value,
      seed: Math.trunc(Number(find("seed").value)),
    };
    if (!find("given-row").hidden) body.given = Math.trunc(Number(find("given").value));
    const script = happens === "own" ? find("script").value : happens;
    if (model.actions.length && script) body.actions = script;
    if (find("class").value) body.label = Number(find("class").value);
    Object.assign(body, wordsAsked());
    find("make").disabled = true;
    try {
      if (line && !line.over) await giveUp();
      const answer = await ask("/api/videos", {
        method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
      });
      begin(answer);
    } catch (error) {
      say(error.message);
    } finally {
      find("make").disabled = false;
    }
  };

  async function giveUp() {
    line.close();
    await ask(`/api/videos/${video}`, { method: "DELETE" }).catch(() => {});
  }

  function begin(answer) {
    stopShowing();
    [video, frames, status] = [answer.video, [], answer];
    find("video").classList.add("begun");
    find("showing").hidden = find("sheet").hidden = true;
    find("making").hidden = false;
    find("cancel").disabled = false;
    find("progress").value = 0;
    tell();
    find("screen").scrollIntoView({ block: "nearest", behavior: "smooth" });
    line = new Line(() => `/api/videos/${video}/frames?from=${frames.length}`, {
      message: hear,
      frame: (message, bytes) => {
        frames[message.index] = bytes;
        find("video-curtain").hidden = true;
        view.show(bytes);
        tell();
      },
      broken: () => { find("progress-text").textContent = "Connection lost. Trying again…"; },
      end: (reason) => {
        if (reason) say(reason);
        finish();
      },
    });
  }

  function hear(message) {
    if (message.type === "error") {
      say(capital(message.error));
      return;
    }
    status = message;
    tell();
  }

  function tell() {
    const { state, position, seconds_left: left, frames: total } = status;
    let text = `Frame ${frames.length} of ${total}`;
    if (state === "waiting") text = `Waiting: ${ORDINALS[position] ?? `number ${position} in line`}`;
    else if (left !== null && frames.length < total) text += `, about ${Math.max(1, Math.ceil(left))} s left`;
    find("progress-text").textContent = text;
    find("progress").value = frames.length / total;
  }

  find("sheet").onerror = () => {
    find("sheet").hidden = true;
    say("The contact sheet could not be loaded.");
  };

  find("cancel").onclick = () => {
    find("cancel").disabled = true;
    line?.send({ type: "cancel" });
  };

  function finish() {
    find("making").hidden = true;
    const { state, reason } = status;
    if (state === "failed") say(capital(reason));
    if (state === "cancelled") say(frames.length > 1 ? `Stopped after ${frames.length} frames.` : "Stopped.");
    if (!frames.length) return;
    const files = new Set(status.files);
    for (const link of document.querySelectorAll("#downloads a")) {
      link.hidden = !files.has(link.dataset.file);
      link.href = `/api/videos/${video}/${link.dataset.file}`;
    }
    find("sheet").hidden = !files.has("contact.png");
    if (files.has("contact.png")) find("sheet").src = `/api/videos/${video}/contact.png`;
    find("scrub").max = frames.length - 1;
    find("showing").hidden = false;
    show(true);
  }

  // --- watching it again and again ------------------------------------------------------------------------------------

  function show(on) {
    playing = on;
    find("replay").textContent = on ? "Pause" : "Play";
    find("replay").setAttribute("aria-pressed", String(on));
    clearInterval(timer);
    if (on) timer = setInterval(() => showFrame((Number(find("scrub").value) + 1) % frames.length), 1000 / status.rate);
  }

  function stopShowing() {
    clearInterval(timer);
    playing = false;
  }

  function showFrame(index) {
    if (find("video").hidden || !frames[index]) return;
    find("scrub").value = index;
    find("scrub-text").textContent = `frame ${index}`;
    view.show(frames[index]);
  }

  find("replay").onclick = () => show(!playing);
  find("scrub").oninput = () => {
    show(false);
    showFrame(Number(find("scrub").value));
  };
}
