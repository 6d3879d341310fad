// Before anybody plays: a few seconds of the model's own, over and over, with the keys that led to them lit.

import { ask, find } from "./common.js";

const AGAIN_MS = 1000;
const ATTEMPTS = 30;

export class Trailer {
  // `draw(picture, x, y)`: shows the part of a picture that begins there; `light(names)`: the keys.
  constructor({ draw, light }) {
    Object.assign(this, { draw, light, over: matchMedia("(prefers-reduced-motion: reduce)").matches });
    if (!this.over) this.begin();
  }

  async begin() {
    try {
      let film = await ask("/api/trailer");
      for (let attempt = 0; film.state === "making" && attempt < ATTEMPTS && !this.over; attempt++) {
        await new Promise((resolve) => setTimeout(resolve, AGAIN_MS));
        if (!this.over) film = await ask("/api/trailer");
      }
      if (film.state !== "ready" || this.over) return;
      const picture = new Image();
      picture.src = "/api/trailer.jpg";
      await picture.decode();
      if (!this.over) this.play(film, picture);
    } catch {
      // Nothing to say: it is not needed.
    }
  }

  play({ held, columns, rate }, picture) {
    const width = picture.naturalWidth / columns;
    const height = picture.naturalHeight / Math.ceil(held.length / columns);
    let index = 0;
    find("curtain").classList.add("clear");
    this.timer = setInterval(() => {
      this.draw(picture, (index % columns) * width, Math.floor(index / columns) * height, width, height);
      this.light(held[index]);
      index = (index + 1) % held.length;
    }, 1000 / rate);
  }

  stop() {
    if (this.over) return;
    this.over = true;
    clearInterval(this.timer);
    find("curtain").classList.remove("clear");
    this.light([]);
  }
}
