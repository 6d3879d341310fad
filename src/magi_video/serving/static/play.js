// Playing: keys and touch to the server, frames back.

import { Beginnings, capital, element, fillChoices, find, Line, paceChoices, say, speedChoices, View } from "./common.js";

const KEY_NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Space: "Space", ShiftLeft: "Shift", Enter: "Enter" };
const keyName = (code) => KEY_NAMES[code] ?? code.replace(/^(Key|Digit)/, "");
const MOVES = new Set(["up", "down", "left", "right", "far left", "far right"]);
const WINDOW_MS = 2000;
const LATENCIES = 15;

export function setUpPlay(model) {
  const world = find("world");
  const view = new View(find("model-view"), model.width, model.height);
  const gameView = new View(find("game-view"), model.width, model.height);
  const caption = document.querySelector("#world figcaption");
  const held = new Map(); // control → what holds it: key codes, or "touch"
  const pressed = new Map(); // number of a key message → when it was sent
  const shown = []; // when the latest frames were drawn
  const latencies = [];
  let line = null;
  let session = null;
  let keys = 0;
  let paused = false;
  let wanted = null; // what the present world was asked for
  let interval = model.interval;
  let entering = false; // the wanted world has not begun; what still comes is of the one before

  const beginnings = new Beginnings(find("play-begin"), model, () => (line ? start() : preview()));
  fillChoices(find("play-interval"), paceChoices(model), String(model.interval));
  fillChoices(find("play-speed"), speedChoices(model), "realtime");
  for (const id of ["play-interval", "play-speed"]) find(id).onchange = () => line && start();
  setUpBeside();
  setUpPad();
  preview();

  function preview() {
    const picture = beginnings.picture();
    if (!picture) return;
    if (picture.complete && picture.naturalWidth) view.draw(picture);
    else picture.addEventListener("load", () => line || view.draw(picture), { once: true });
  }

  function setUpBeside() {
    if (!model.games.length) return;
    find("beside-row").hidden = false;
    fillChoices(find("beside-which"), model.games.map((name) => [name, capital(name.replace(/^.*\//, "").replace(/_/g, " "))]), model.games[0]);
    find("beside").onchange = () => {
      find("beside-which-row").hidden = !find("beside").checked || model.games.length < 2;
      find("play-begin-set").disabled = find("beside").checked; // the real game gives the first frame
      if (line) start();
    };
    find("beside-which").onchange = () => line && start();
  }

  function request(seed) {
    const beside = find("beside").checked ? find("beside-which").value : null;
    interval = Number(find("play-interval").value);
    return {
      type: "start", ...beginnings.chosen(), ...(beside ? { beside } : {}),
      interval, speed: find("play-speed").value, seed,
    };
  }

  // A world from its first frame on; the same seed makes the same random choices.
  function start(seed = Math.floor(Math.random() * 2 ** 31)) {
    wanted = request(seed);
    entering = true;
    const two = Boolean(wanted.beside);
    find("game-figure").hidden = !two;
    caption.hidden = !two;
    world.classList.toggle("two", two);
    let text = "The first frame…";
    if (two) text = "Starting the real game…";
    curtain(text, null);
    say("");
    world.scrollIntoView({ block: "nearest", behavior: "smooth" });
    if (line && !line.over) order();
    else connect();
  }

  function order() {
    line.send(wanted);
    if (held.size) sendKeys(); // what is held goes on to be held in the new world
  }

  function connect() {
    session = null;
    line = new Line(() => `/api/play${session ? `?session=${session}` : ""}`, {
      message: hear,
      frame: draw,
      broken: () => curtain("Connection lost. Trying again…", null),
      end: (reason) => stop(reason),
    });
  }

  function hear(message) {
    if (message.type === "hello") {
      if (session && !message.resumed) say("The connection was lost for too long: this is a new world.");
      session = message.session;
      if (message.resumed) {
        line.send({ type: "pause", paused });
        if (held.size) sendKeys();
        curtain(paused ? "Paused" : null, paused ? "Go on" : null);
      } else order();
    } else if (message.type === "error") {
      entering = false;
      if (shown.length) say(capital(message.error)); // the world before goes on
      else curtain(capital(message.error), "Play");
    } else if (message.type === "ended") {
      curtain(`This model's worlds last ${message.frames} frames.`, "Play again");
    } else if (message.type === "episode") {
      say("The real game's episode was over; both have begun a new one.");
    } else if (message.type === "closed") {
      stop("Nothing was pressed for a while, so your place was given up.");
    }
  }

  async function draw(message, bytes) {
    if (message.source === "game") {
      gameView.show(bytes);
      return;
    }
    const { index, keys: made } = message;
    if (index === 0) {
      entering = false;
      shown.length = 0;
      pressed.clear();
    }
    await view.show(bytes);
    if (!line) return; // it was stopped meanwhile
    const now = performance.now();
    line.send({ type: "shown", index });
    shown.push(now);
    while (shown[0] < now - WINDOW_MS) shown.shift();
    for (const [number, when] of pressed) {
      if (number > made || index === 0) break;
      pressed.delete(number);
      latencies.push(now - when);
      if (latencies.length > LATENCIES) latencies.shift();
    }
    if (!paused && !entering) curtain(null);
    tell(index);
  }

  function tell(index) {
    const most = model.frame_rate / interval;
    find("frame-number").textContent = String(index);
    find("rate-of").textContent = `of ${Number(most.toFixed(1))}`;
    if (shown.length > 5) {
      const rate = ((shown.length - 1) * 1000) / (shown[shown.length - 1] - shown[0]);
      if (index % 5 === 0) find("rate").textContent = rate.toFixed(1);
      const slow = shown.length > 10 && rate < 0.8 * most;
      find("pace-hint").hidden = !slow;
      if (slow) find("pace-hint").textContent = "Slower than the game: the machine is busy. Fewer frames a second will help.";
    }
    if (latencies.length) {
      const sorted = [...latencies].sort((a, b) => a - b);
      find("latency").textContent = sorted[Math.floor(sorted.length / 2)].toFixed(0);
    }
  }

  // What lies over the picture: a text, and a button or none. No text: nothing.
  function curtain(text, button = "Play") {
    find("curtain").hidden = text === null;
    if (text !== null) {
      find("curtain-text").textContent = text;
      find("enter").hidden = button === null;
      if (button !== null) find("enter").textContent = button;
    }
    const playing = line !== null && !line.over;
    for (const id of ["pause", "again", "elsewhere"]) find(id).disabled = !playing;
  }

  function stop(reason) {
    line?.close();
    line = null;
    letGo();
    setPaused(false);
    curtain(reason ?? find("curtain-text").textContent, "Play again");
  }

  function setPaused(value) {
    paused = value;
    find("pause").firstChild.textContent = value ? "Go on " : "Pause ";
    if (value) letGo();
    line?.send({ type: "pause", paused: value });
    if (line) curtain(value ? "Paused" : null, value ? "Go on" : null);
    shown.length = 0;
  }

  // --- keys -----------------------------------------------------------------------------------------------------------

  function sendKeys() {
    line?.send({ type: "keys", held: [...held.keys()], keys: ++keys });
  }

  function press(control, by) {
    if (!line || paused) return;
    const holders = held.get(control) ?? new Set();
    const fresh = holders.size === 0;
    holders.add(by);
    held.set(control, holders);
    if (!fresh) return;
    light(control, true);
    sendKeys();
    pressed.set(keys, performance.now());
  }

  function release(control, by) {
    const holders = held.get(control);
    if (!holders?.delete(by) || holders.size) return;
    held.delete(control);
    light(control, false);
    sendKeys();
  }

  function letGo() {
    for (const control of [...held.keys()]) light(control, false);
    if (held.size) {
      held.clear();
      sendKeys();
    }
  }

  function light(control, on) {
    document.querySelector(`.pad [data-control="${CSS.escape(control)}"]`)?.classList.toggle("held", on);
  }

  function setUpPad() {
    const move = element("div", { class: "move" });
    const act = element("div", { class: "do" });
    for (const control of model.controls) {
      const caps = element("span", {}, ...control.keys.flatMap((code) => [element("kbd", {}, keyName(code)), " "]));
      const button = element("button", {
        type: "button", "data-control": control.name, "data-place": control.place, "aria-label": control.label,
      }, control.label, caps);
      button.onpointerdown = (event) => {
        event.preventDefault();
        button.setPointerCapture(event.pointerId);
        press(control.name, `touch ${event.pointerId}`);
      };
      button.onlostpointercapture = (event) => release(control.name, `touch ${event.pointerId}`);
      button.oncontextmenu = (event) => event.preventDefault();
      // A button of the page, too: Enter or the space bar holds it.
      button.onkeydown = (event) => ["Enter", " "].includes(event.key) && press(control.name, "button");
      button.onkeyup = () => release(control.name, "button");
      button.onblur = () => release(control.name, "button");
      (MOVES.has(control.place) ? move : act).append(button);
    }
    if (move.children.length) find("pad").append(move);
    if (act.children.length) find("pad").append(act);
  }

  const byKey = new Map(model.controls.flatMap((control) => control.keys.map((code) => [code, control.name])));
  const commands = {
    KeyP: () => find("pause").click(), KeyR: () => find("again").click(), KeyN: () => find("elsewhere").click(),
  };

  // Keys go to the world, unless something else on the page has the focus and would use them itself.
  const isOurs = (event) =>
    !find("play").hidden && !event.ctrlKey && !event.metaKey && !event.altKey &&
    (event.target === document.body || world.contains(event.target) ||
      (event.target.closest("button") && !["Enter", "Space"].includes(event.code)));

  window.addEventListener("keydown", (event) => {
    if (!isOurs(event)) return;
    const control = byKey.get(event.code);
    if (control !== undefined && line) {
      if (!event.repeat) press(control, event.code);
    } else if (commands[event.code] && !event.repeat) commands[event.code]();
    else if (["Enter", "Space"].includes(event.code) && event.target === world && !find("enter").hidden) find("enter").click();
    else return;
    event.preventDefault();
  });
  window.addEventListener("keyup", (event) => {
    const control = byKey.get(event.code);
    if (control !== undefined) release(control, event.code);
  });
  window.addEventListener("blur", letGo);
  document.addEventListener("visibilitychange", () => document.hidden && line && !paused && setPaused(true));

  // --- buttons --------------------------------------------------------------------------------------------------------

  find("enter").onclick = () => {
    world.focus({ preventScroll: true });
    if (paused) setPaused(false);
    else start();
  };
  find("pause").onclick = () => setPaused(!paused);
  find("again").onclick = () => { restart(wanted?.seed); };
  find("elsewhere").onclick = () => {
    if (!find("beside").checked) beginnings.chooseAnother();
    restart();
  };

  function restart(seed) {
    if (paused) setPaused(false);
    start(seed);
    world.focus({ preventScroll: true });
  }

  return () => line && !paused && setPaused(true); // on leaving for another tab
}
