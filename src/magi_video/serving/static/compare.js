// The model and the real game: side by side, one over the other with an edge that moves, or their difference.

import { find, View } from "./common.js";

export class Comparison {
  constructor(model) {
    this.world = find("world");
    this.model = new View(find("model-view"), model.width, model.height);
    this.game = new View(find("game-view"), model.width, model.height);
    this.difference = find("difference-view");
    Object.assign(this.difference, { width: model.width, height: model.height });
    this.difference.classList.toggle("crisp", Math.min(model.width, model.height) <= 128);
    this.pen = this.difference.getContext("2d", { willReadFrequently: true });
    this.beside = false;
    for (const radio of document.querySelectorAll("[name=compare]")) {
      radio.onchange = () => this.lay();
      radio.onclick = (event) => event.detail && this.world.focus({ preventScroll: true }); // by mouse: keys go on to move you
    }
    find("wipe").oninput = () => this.wipe();
    this.world.addEventListener("pointerdown", (event) => {
      if (!this.beside || this.way !== "wipe" || event.target.closest("button")) return;
      this.world.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    this.world.addEventListener("pointermove", (event) => this.world.hasPointerCapture(event.pointerId) && this.drag(event));
    this.lay();
  }

  get way() {
    return this.beside ? document.querySelector("[name=compare]:checked").value : "one";
  }

  // Whether the real game is there.
  show(beside) {
    this.beside = beside;
    find("game-caption").textContent = "The real game";
    this.lay();
  }

  stands() {
    find("game-caption").textContent = "The real game, standing still";
  }

  lay() {
    const way = this.way;
    find("compare").hidden = !this.beside;
    find("game-figure").hidden = !["two", "wipe"].includes(way);
    find("difference-figure").hidden = way !== "difference";
    find("wipe").hidden = way !== "wipe";
    document.querySelector("#world figcaption").hidden = !["two", "wipe"].includes(way);
    for (const one of ["two", "wipe", "difference"]) this.world.classList.toggle(one, one === way);
    this.wipe();
    this.compare();
  }

  wipe() {
    this.world.style.setProperty("--edge", `${find("wipe").value}%`);
  }

  drag(event) {
    const box = this.world.getBoundingClientRect();
    find("wipe").value = Math.round((100 * (event.clientX - box.left)) / box.width);
    this.wipe();
  }

  async showModel(index, bytes) {
    const bitmap = await this.model.show(bytes);
    this.shownModel = index;
    this.compare();
    return bitmap;
  }

  async showGame(index, bytes) {
    await this.game.show(bytes);
    this.shownGame = index;
    this.compare();
  }

  // |model − game| of two frames of the same number.
  compare() {
    if (this.way !== "difference" || this.shownModel !== this.shownGame) return;
    const { width, height } = this.difference;
    this.pen.globalCompositeOperation = "copy";
    this.pen.drawImage(this.model.context.canvas, 0, 0);
    this.pen.globalCompositeOperation = "difference";
    this.pen.drawImage(this.game.context.canvas, 0, 0);
    const { data } = this.pen.getImageData(0, 0, width, height);
    let sum = 0;
    for (let at = 0; at < data.length; at += 4) sum += data[at] + data[at + 1] + data[at + 2];
    const share = (100 * sum) / (3 * 255 * width * height);
    find("difference-caption").textContent = `Difference, ${share.toFixed(1)} % on average`;
  }
}
