// The figures beside the picture: frames a second, milliseconds from a key to its picture, the number of the frame.
// All are of one world.

import { find } from "./common.js";

const WINDOW_MS = 2000; // over which frames are counted
const LEAST_MS = 1000; // before which nothing is said of the rate
const UPDATE_MS = 500; // from one rate to the next, so that it can be read
const LATENCIES = 15;
const SLOW = 0.8; // of the asked rate, below which the world counts as slow

export class Figures {
  constructor() {
    this.begin(null);
  }

  // Another world, which is asked for `rate` frames a second.
  begin(rate) {
    this.asked = rate;
    this.sent = new Map(); // number of a key message → when it was sent
    this.latencies = [];
    this.rest();
    find("rate").textContent = find("latency").textContent = find("frame-number").textContent = "–";
    find("rate-of").textContent = rate === null ? "" : `of ${Number(rate.toFixed(1))}`;
    this.hint(false);
  }

  // The world stands still: the time until the next frame does not count.
  rest() {
    this.shown = []; // when the latest frames were drawn
    this.updated = -Infinity;
  }

  key(number, now) {
    this.sent.set(number, now);
  }

  at(index) {
    find("frame-number").textContent = String(index);
  }

  // A frame was drawn that was made with the keys of message `made` and those before.
  frame(index, made, now) {
    this.at(index);
    this.shown.push(now);
    // The window begins with a frame, not after it: frames that are drawn at once after a stall count with the stall.
    while (this.shown.length > 2 && this.shown[1] <= now - WINDOW_MS) this.shown.shift();
    const seconds = (now - this.shown[0]) / 1000;
    if (1000 * seconds >= LEAST_MS && now - this.updated >= UPDATE_MS) {
      const rate = (this.shown.length - 1) / seconds;
      find("rate").textContent = rate.toFixed(1);
      this.hint(rate < SLOW * this.asked);
      this.updated = now;
    }
    for (const [number, when] of this.sent) {
      if (number > made || index === 0) break;
      this.sent.delete(number);
      this.latencies.push(now - when);
      if (this.latencies.length > LATENCIES) this.latencies.shift();
    }
    if (!this.latencies.length) return;
    const sorted = [...this.latencies].sort((a, b) => a - b);
    find("latency").textContent = sorted[Math.floor(sorted.length / 2)].toFixed(0);
  }

  hint(slow) {
    const advice = find("play-interval").options.length > 1 ? " Fewer frames a second will help." : "";
    find("pace-hint").textContent = slow
      ? `Slower than the game: the machine is busy.${advice}`
      : "Another beginning, pace or speed is a new world.";
  }
}
