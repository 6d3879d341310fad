// The frames made so far as a strip: move along it to see them, and to go on from any.

import { element, find } from "./common.js";

const THUMBS = 12;
const STRIDE = 8; // frames from one picture of the strip to the next; doubled when it is full
const HEIGHT = 96;

export class Run {
  // `looked(index)`: a frame of the past is looked at, or (null) the newest again; `chosen()`: go on from it.
  constructor(model, { looked, chosen }) {
    Object.assign(this, { most: model.run_frames, looked });
    this.slider = find("past");
    this.canvas = find("strip");
    this.shape = [Math.round((HEIGHT * model.width) / model.height), HEIGHT];
    Object.assign(this.canvas, { width: THUMBS * this.shape[0], height: HEIGHT });
    this.pen = this.canvas.getContext("2d");
    find("run").hidden = !this.most;
    this.reset();
    this.slider.oninput = () => {
      let index = Number(this.slider.value);
      while (index > this.first && !this.frames.has(index)) index--; // some were lost with a connection
      if (!this.frames.has(index)) return;
      this.index = index === this.last ? null : index;
      this.looked(this.index);
    };
    this.slider.onkeydown = (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      chosen();
    };
  }

  reset() {
    this.frames = new Map(); // number → JPEG
    this.games = new Map(); // the same of the real game
    this.thumbs = new Map(); // number → picture
    [this.stride, this.first, this.last, this.index] = [STRIDE, 0, -1, null];
    this.tell();
    this.draw();
  }

  add(index, bytes, bitmap) {
    if (!this.most) return;
    this.frames.set(index, bytes);
    this.last = index;
    for (; this.first <= index - this.most; this.first++) { // as the server does
      this.frames.delete(this.first);
      this.games.delete(this.first);
      this.thumbs.delete(this.first);
    }
    if (index % this.stride === 0 && bitmap) {
      const small = element("canvas");
      [small.width, small.height] = this.shape;
      small.getContext("2d").drawImage(bitmap, 0, 0, ...this.shape);
      this.thumbs.set(index, small);
      while (this.last - this.first >= THUMBS * this.stride) {
        this.stride *= 2;
        for (const number of this.thumbs.keys()) if (number % this.stride) this.thumbs.delete(number);
      }
      this.draw();
    }
    this.tell();
  }

  // The real game's frame of a number; it may come before the model's.
  addGame(index, bytes) {
    if (this.most) this.games.set(index, bytes);
  }

  cut(index) {
    for (const kept of [this.frames, this.games, this.thumbs]) {
      for (const number of [...kept.keys()]) if (number > index) kept.delete(number);
    }
    [this.last, this.index] = [index, null];
    this.tell();
    this.draw();
  }

  // The slider is as long as the strip, so that a frame's place on it is where its picture is.
  tell() {
    this.slider.min = this.first;
    this.slider.max = Math.max(this.last, 0);
    if (this.index === null || this.index < this.first) this.slider.value = this.last;
    this.slider.disabled = this.last < 1;
    const share = (this.last - this.first) / (THUMBS * this.stride);
    this.slider.style.width = `max(1.5rem, ${Math.min(100, 100 * share)}%)`;
    this.slider.setAttribute("aria-valuetext", `frame ${this.slider.value} of ${Math.max(this.last, 0)}`);
  }

  draw() {
    const [width, height] = this.shape;
    this.pen.clearRect(0, 0, this.canvas.width, height);
    for (const [number, picture] of this.thumbs) {
      this.pen.drawImage(picture, ((number - this.first) / this.stride) * width, 0);
    }
  }
}
