// What moves you: keys, buttons of the page, a game pad. Each control is held as long as anything holds it.

import { element, find } from "./common.js";

const KEY_NAMES = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", Space: "Space", ShiftLeft: "Shift", Enter: "Enter" };
const keyName = (code) => KEY_NAMES[code] ?? code.replace(/^(Key|Digit)/, "");
const MOVES = new Set(["up", "down", "left", "right", "far left", "far right"]);
const TILT = 0.5; // of a stick, from which it counts

export class Controls {
  // `changed(pressed)`: something was pressed or let go; `ready()`: whether keys count; `start()`: a key is pressed that
  // may begin a world.
  constructor(model, { changed, ready, start }) {
    Object.assign(this, { model, changed, ready, start });
    this.holders = new Map(); // control → what holds it: key codes, "touch 1", "pad"
    this.byKey = new Map(model.controls.flatMap((control) => control.keys.map((code) => [code, control.name])));
    this.setUpPad();
    this.setUpCaps();
    window.addEventListener("blur", () => this.letGo());
    window.addEventListener("gamepadconnected", () => this.poll());
  }

  get held() {
    return [...this.holders.keys()];
  }

  press(control, by) {
    if (!this.ready()) return;
    const holders = this.holders.get(control) ?? new Set();
    const fresh = holders.size === 0;
    holders.add(by);
    this.holders.set(control, holders);
    if (!fresh) return;
    this.light(control, true);
    this.changed(true);
  }

  release(control, by) {
    const holders = this.holders.get(control);
    if (!holders?.delete(by) || holders.size) return;
    this.holders.delete(control);
    this.light(control, false);
    this.changed(false);
  }

  letGo() {
    if (!this.holders.size) return;
    for (const control of this.held) this.light(control, false);
    this.holders.clear();
    this.changed(false);
  }

  light(control, on) {
    const name = CSS.escape(control);
    for (const one of document.querySelectorAll(`[data-control="${name}"], [data-key="${name}"]`)) one.classList.toggle("held", on);
  }

  // Lights these alone, though nobody holds them.
  show(names) {
    for (const { name } of this.model.controls) this.light(name, names.includes(name));
  }

  setUpPad() {
    const move = element("div", { class: "move" });
    const act = element("div", { class: "do" });
    for (const control of this.model.controls) {
      const caps = element("span", {}, ...control.keys.flatMap((code) => [element("kbd", {}, keyName(code)), " "]));
      const button = element("button", {
        type: "button", "data-control": control.name, "data-place": control.place, "aria-label": control.label,
      }, control.label, caps);
      button.onpointerdown = (event) => {
        event.preventDefault();
        button.setPointerCapture(event.pointerId);
        this.start();
        this.press(control.name, `touch ${event.pointerId}`);
      };
      button.onlostpointercapture = (event) => this.release(control.name, `touch ${event.pointerId}`);
      button.oncontextmenu = (event) => event.preventDefault();
      // A button of the page, too: Enter or the space bar holds it.
      button.onkeydown = (event) => ["Enter", " "].includes(event.key) && this.press(control.name, "button");
      button.onkeyup = () => this.release(control.name, "button");
      button.onblur = () => this.release(control.name, "button");
      (MOVES.has(control.place) ? move : act).append(button);
    }
    if (move.children.length) find("pad").append(move);
    if (act.children.length) find("pad").append(act);
  }

  // The keys over the picture, where they are on a keyboard: faint, and lit while they are held.
  setUpCaps() {
    for (const control of this.model.controls) {
      if (!control.keys.length || !(MOVES.has(control.place) || control.place === "fire")) continue;
      find("held").append(element("kbd", { "data-key": control.name, "data-place": control.place }, keyName(control.keys[0])));
    }
  }

  // What a game pad's sticks and buttons hold, by the places of the controls: the left stick or the cross moves, the
  // shoulders and the right stick step aside, A is the first other control, B, X and Y are the next ones.
  pads() {
    const at = (...places) => this.model.controls.find((control) => places.includes(control.place))?.name;
    const others = this.model.controls.filter((control) => !MOVES.has(control.place)).map((control) => control.name);
    const held = new Set();
    for (const pad of navigator.getGamepads?.() ?? []) {
      if (!pad?.connected) continue;
      const axis = (number) => pad.axes[number] ?? 0;
      const down = (number) => pad.buttons[number]?.pressed ?? false;
      if (axis(1) < -TILT || down(12)) held.add(at("up"));
      if (axis(1) > TILT || down(13)) held.add(at("down"));
      if (axis(0) < -TILT || down(14)) held.add(at("left"));
      if (axis(0) > TILT || down(15)) held.add(at("right"));
      if (axis(2) < -TILT || down(4)) held.add(at("far left"));
      if (axis(2) > TILT || down(5)) held.add(at("far right"));
      for (let number = 0; number < 4; number++) if (down(number)) held.add(others[number]);
    }
    held.delete(undefined);
    return held;
  }

  poll() {
    if (this.polling) return;
    this.polling = true;
    let before = new Set();
    const look = () => {
      const held = this.pads();
      for (const name of held) {
        if (!before.has(name)) this.start();
        this.press(name, "pad");
      }
      before = held;
      for (const [name, by] of [...this.holders]) if (by.has("pad") && !held.has(name)) this.release(name, "pad");
      if ([...navigator.getGamepads()].some((pad) => pad?.connected)) requestAnimationFrame(look);
      else this.polling = false;
    };
    look();
  }
}
