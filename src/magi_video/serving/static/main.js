// Starts the page: asks what the model can do, sets up the tabs.

import { ask, find, say } from "./common.js";
import { setUpPlay } from "./play.js";
import { setUpVideo } from "./video.js";

function setUpTabs(leaving) {
  const tabs = [...document.querySelectorAll("[role=tab]")].filter((tab) => !tab.hidden);
  const choose = (chosen) => {
    for (const tab of tabs) {
      const here = tab === chosen;
      tab.setAttribute("aria-selected", String(here));
      tab.tabIndex = here ? 0 : -1;
      const panel = find(tab.getAttribute("aria-controls"));
      if (!here && !panel.hidden) leaving[panel.id]?.();
      panel.hidden = !here;
    }
    say("");
  };
  for (const [index, tab] of tabs.entries()) {
    tab.onclick = () => choose(tab);
    tab.onkeydown = (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      const next = tabs[(index + step + tabs.length) % tabs.length];
      choose(next);
      next.focus();
      event.preventDefault();
    };
  }
  find("tabs").hidden = tabs.length < 2;
  choose(tabs[0]);
}

try {
  const model = await ask("/api/model");
  find("model-name").textContent = model.model;
  document.title = `MAGI ${model.model}`;
  find("tab-play").hidden = model.controls.length === 0;
  find("about").textContent =
    `Runs on this machine (${model.device}). ${model.width} × ${model.height} pixels, made one frame after another; ` +
    (model.window ? `each sees ${model.window} earlier frames.` : "each sees all earlier frames.");
  document.body.style.setProperty("--aspect", String(model.width / model.height));
  const leaving = { play: model.controls.length ? setUpPlay(model) : null };
  setUpVideo(model);
  setUpTabs(leaving);
} catch (error) {
  say(error.message);
}
