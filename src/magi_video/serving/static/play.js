// Playing: keys and touch to the server, frames back.

import { ask, Beginnings, capital, fillChoices, find, Line, paceChoices, say, speedChoices } from "./common.js";
import { Comparison } from "./compare.js";
import { Controls } from "./controls.js";
import { Run } from "./run.js";
import { Trailer } from "./trailer.js";

const WINDOW_MS = 2000;
const LATENCIES = 15;

export function setUpPlay(model) {
  const world = find("world");
  find("play").style.setProperty("--aspect", String(model.width / model.height));
  const views = new Comparison(model);
  const pressed = new Map(); // number of a key message → when it was sent
  const shown = []; // when the latest frames were drawn
  const latencies = [];
  let line = null;
  let session = null;
  let keys = 0;
  let paused = false;
  let wanted = null; // what the present world was asked for
  let interval = model.played_interval;
  let entering = false; // the wanted world has not begun; what still comes is of the one before
  let looking = false; // at a frame of the past

  const run = new Run(model, { looked: look, chosen: () => goOn() });
  const controls = new Controls(model, {
    changed: sendKeys,
    ready: () => Boolean(line) && !paused,
    start: () => { if (!line || line.over) enter(); },
  });
  const beginnings = new Beginnings(find("play-begin"), model, () => {
    trailer.stop();
    if (line) start();
    else preview();
  });
  fillChoices(find("play-interval"), paceChoices(model), String(model.played_interval));
  fillChoices(find("play-speed"), speedChoices(model), "realtime");
  for (const id of ["play-interval", "play-speed"]) find(id).onchange = () => line && start();
  setUpBeside();
  preview();
  const trailer = new Trailer({
    draw: (picture, x, y, width, height) => {
      const { context } = views.model;
      context.drawImage(picture, x, y, width, height, 0, 0, context.canvas.width, context.canvas.height);
    },
    light: (names) => controls.show(names),
  });

  function preview() {
    const picture = beginnings.picture();
    if (!picture) return;
    if (picture.complete && picture.naturalWidth) views.model.draw(picture);
    else picture.addEventListener("load", () => line || views.model.draw(picture), { once: true });
  }

  function setUpBeside() {
    find("no-games").hidden = !model.games_problem;
    find("no-games").textContent = `No real game to compare with: ${model.games_problem}.`;
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
    looking = false;
    trailer.stop();
    views.show(Boolean(wanted.beside));
    curtain(wanted.beside ? "Starting the real game…" : "The first frame…", null);
    say("");
    world.scrollIntoView({ block: "nearest", behavior: "smooth" });
    if (line && !line.over) order();
    else connect();
  }

  function order() {
    line.send(wanted);
    if (controls.held.length) sendKeys(); // what is held goes on to be held in the new world
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
        if (controls.held.length) sendKeys();
        curtain(paused ? "Paused" : null, paused ? "Go on" : null);
      } else order();
    } else if (message.type === "error") {
      entering = false;
      if (shown.length || run.last >= 0) say(capital(message.error)); // the world before goes on
      else curtain(capital(message.error), "Play");
    } else if (message.type === "branched") {
      run.cut(message.index);
      shown.length = 0;
      if (!wanted.beside) return;
      views.stands();
      say("The real game cannot go back: it stands still, and the model goes on alone.");
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
      views.showGame(message.index, bytes);
      return;
    }
    const { index, keys: made } = message;
    if (index === 0) {
      entering = false;
      looking = false;
      shown.length = 0;
      pressed.clear();
      run.reset();
    }
    if (looking) { // it was on its way when the past was turned to
      run.add(index, bytes, null);
      line?.send({ type: "shown", index });
      return;
    }
    const bitmap = await views.showModel(index, bytes);
    if (!line) return; // it was stopped meanwhile
    const now = performance.now();
    line.send({ type: "shown", index });
    run.add(index, bytes, bitmap);
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
    find("save").disabled = !playing || !model.run_frames;
  }

  function stop(reason) {
    line?.close();
    line = null;
    controls.letGo();
    setPaused(false);
    curtain(reason ?? find("curtain-text").textContent, "Play again");
  }

  function pauseButton(text) {
    find("pause-text").textContent = text;
    find("pause").classList.toggle("looking", looking);
  }

  function setPaused(value) {
    paused = value;
    looking = false;
    pauseButton(value ? "Go on" : "Pause");
    if (value) controls.letGo();
    line?.send({ type: "pause", paused: value });
    if (line) curtain(value ? "Paused" : null, value ? "Go on" : null);
    shown.length = 0;
  }

  // --- the past -------------------------------------------------------------------------------------------------------

  // At a frame of the past, or (null) at the newest one again; the world stands still meanwhile.
  function look(index) {
    if (line && !line.over) {
      if (!paused) setPaused(true);
      looking = index !== null;
      curtain(null);
      pauseButton(looking ? `Play from ${index}` : "Go on");
    }
    const number = index ?? run.last;
    find("frame-number").textContent = String(number);
    views.showModel(number, run.frames.get(number));
  }

  function goOn() {
    if (!line || line.over) return;
    if (!paused || run.index === null) {
      setPaused(!paused);
      return;
    }
    const index = run.index;
    [paused, looking] = [false, false]; // the server goes on when it has gone back
    pauseButton("Pause");
    line.send({ type: "branch", index });
    world.focus({ preventScroll: true });
  }

  find("save").onclick = async () => {
    find("save").disabled = true;
    try {
      const file = await ask(`/api/play/${session}/run.zip`, {}, (response) => response.blob());
      const link = document.createElement("a");
      link.href = URL.createObjectURL(file);
      link.download = `${model.model}-run.zip`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    } catch (error) {
      say(error.message);
    } finally {
      find("save").disabled = !line;
    }
  };

  // --- keys -----------------------------------------------------------------------------------------------------------

  function sendKeys(fresh = false) {
    line?.send({ type: "keys", held: controls.held, keys: ++keys });
    if (fresh) pressed.set(keys, performance.now());
  }

  const commands = {
    KeyP: () => find("pause").click(), KeyR: () => find("again").click(), KeyN: () => find("elsewhere").click(),
  };

  // Keys go to the world, unless something else on the page has the focus and would use them itself.
  const isOurs = (event) =>
    !find("play").hidden && !event.ctrlKey && !event.metaKey && !event.altKey &&
    (event.target === document.body || world.contains(event.target) ||
      (event.target.closest("button:not([role=tab])") && !["Enter", "Space"].includes(event.code)));

  window.addEventListener("keydown", (event) => {
    if (!isOurs(event)) return;
    const control = controls.byKey.get(event.code);
    const onButton = event.target.closest("button") && ["Enter", "Space"].includes(event.code);
    if (control !== undefined && !onButton) {
      if (!event.repeat) {
        if (!line || line.over) enter(); // the first key begins
        controls.press(control, event.code);
      }
    } else if (commands[event.code] && !event.repeat) commands[event.code]();
    else if (["Enter", "Space"].includes(event.code) && event.target === world && !find("enter").hidden) find("enter").click();
    else return;
    event.preventDefault();
  });
  window.addEventListener("keyup", (event) => {
    const control = controls.byKey.get(event.code);
    if (control !== undefined) controls.release(control, event.code);
  });
  document.addEventListener("visibilitychange", () => document.hidden && line && !paused && setPaused(true));

  // --- buttons --------------------------------------------------------------------------------------------------------

  function enter() {
    world.focus({ preventScroll: true });
    if (paused) goOn();
    else start();
  }

  find("enter").onclick = enter;
  find("pause").onclick = goOn;
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
