// Playing: keys and touch to the server, frames back.

import { ask, Beginnings, capital, fillChoices, find, Line, paceChoices, say, speedChoices } from "./common.js";
import { Comparison } from "./compare.js";
import { Controls } from "./controls.js";
import { Figures } from "./figures.js";
import { Run } from "./run.js";
import { Trailer } from "./trailer.js";

export function setUpPlay(model) {
  const world = find("world");
  const views = new Comparison(model);
  const figures = new Figures();
  const alone = find("curtain-text").textContent;
  let line = null;
  let session = null;
  let keys = 0;
  let paused = false;
  let wanted = null; // what the present world was asked for
  let worlds = 0; // that have begun
  let playing = false; // one of them has begun and goes on
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
      showBeside();
      if (line) start();
    };
    find("beside-which").onchange = () => line && start();
  }

  // The real game gives the first frame: there is nothing to choose.
  function showBeside() {
    const beside = find("beside").checked;
    find("beside-which-row").hidden = !beside || model.games.length < 2;
    find("play-begin").hidden = beside;
    find("play-begin-game").hidden = !beside;
    if (line) return;
    trailer.stop();
    find("curtain-text").textContent = beside ? find("play-begin-game").textContent : alone;
    if (beside) views.model.clear();
    else preview();
  }

  function request(seed) {
    const beside = find("beside").checked ? find("beside-which").value : null;
    return {
      type: "start", ...(beside ? { beside } : beginnings.chosen()),
      interval: Number(find("play-interval").value), speed: find("play-speed").value, seed,
    };
  }

  // A world from its first frame on; the same seed makes the same random choices.
  function start(seed = Math.floor(Math.random() * 2 ** 31)) {
    if (paused) setPaused(false);
    wanted = request(seed);
    entering = true;
    looking = false;
    trailer.stop();
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
    [session, playing] = [null, false];
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
    } else if (message.type === "begun") {
      begin(message);
    } else if (message.type === "error") {
      refused(capital(message.error));
    } else if (message.type === "branched") {
      run.cut(message.index);
      figures.rest();
      if (!views.beside) return;
      views.part(message.index);
      showGameOf(message.index);
      say("The real game cannot go back: it stands still, and the model goes on alone.");
    } else if (message.type === "ended") {
      curtain(`This model's worlds last ${message.frames} frames.`, "Play again");
    } else if (message.type === "episode") {
      say("The real game's episode was over; both have begun a new one.");
    } else if (message.type === "closed") {
      stop("Nothing was pressed for a while, so your place was given up.");
    }
  }

  // The wanted world begins; what comes from now on is of it.
  function begin({ rate, beside }) {
    worlds++;
    [playing, entering, looking] = [true, false, false];
    figures.begin(rate);
    run.reset();
    views.begin(beside);
  }

  function refused(reason) {
    entering = false;
    if (!playing) {
      curtain(reason, "Play");
      return;
    }
    say(reason); // the world before goes on
    curtain(null);
    if (!find("beside").checked || views.beside) return;
    find("beside").checked = false;
    showBeside();
  }

  async function draw(message, bytes) {
    const { index, keys, source } = message;
    if (source === "game") {
      run.addGame(index, bytes);
      if (!looking) views.showGame(index, bytes);
      return;
    }
    if (looking) { // it was on its way when the past was turned to
      run.add(index, bytes, null);
      line?.send({ type: "shown", index });
      return;
    }
    const drawnOf = worlds;
    const bitmap = await views.showModel(index, bytes);
    if (!line || drawnOf !== worlds) return; // it was stopped, or another began meanwhile
    line.send({ type: "shown", index });
    if (bitmap) run.add(index, bytes, bitmap);
    if (bitmap && !looking) figures.frame(index, keys, performance.now());
    if (!paused && !entering) curtain(null);
  }

  // What lies over the picture: a text, and a button or none. No text: nothing.
  function curtain(text, button = "Play") {
    find("curtain").hidden = text === null;
    if (text !== null) {
      find("curtain-text").textContent = text;
      find("enter").hidden = button === null;
      if (button !== null) find("enter").textContent = button;
    }
    const connected = line !== null && !line.over;
    for (const id of ["pause", "again", "elsewhere"]) find(id).disabled = !connected;
    find("save").disabled = !connected || !model.run_frames;
  }

  function stop(reason) {
    line?.close();
    line = null;
    controls.letGo();
    setPaused(false);
    curtain(reason ?? (playing ? "This world has ended." : find("curtain-text").textContent), "Play again");
    playing = false;
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
    figures.rest();
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
    figures.at(number);
    views.showModel(number, run.frames.get(number));
    if (views.beside) showGameOf(number);
  }

  function showGameOf(index) {
    const number = views.gameFrame(index);
    views.showGame(number, run.games.get(number));
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
    if (fresh) figures.key(keys, performance.now());
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
    start(seed);
    world.focus({ preventScroll: true });
  }

  return () => line && !paused && setPaused(true); // on leaving for another tab
}
