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
    this.radios = [...document.querySelectorAll("[name=compare]")];
    this.choice = this.radios.find((radio) => radio.checked).value;
    for (const radio of this.radios) {
      radio.onchange = () => {
        this.choice = radio.value;
        this.lay();
      };
      radio.onclick = (event) => event.detail && this.world.focus({ preventScroll: true }); // by mouse: keys go on to move you
    }
    find("wipe").oninput = () => this.wipe();
    this.world.addEventListener("pointerdown", (event) => {
      if (this.way !== "wipe" || event.target.closest("button")) return;
      this.world.setPointerCapture(event.pointerId);
      this.drag(event);
    });
    this.world.addEventListener("pointermove", (event) => this.world.hasPointerCapture(event.pointerId) && this.drag(event));
    this.begin(false);
  }

  // Another world, with the real game beside it or without.
  begin(beside) {
    this.beside = beside;
    this.parted = null; // number of the frame from which on the model went on alone
    this.shownModel = this.shownGame = null;
    this.lay();
  }

  // The run goes on from this frame, and the real game stays where both were last together.
  part(index) {
    this.parted = Math.min(index, this.parted ?? index);
    this.lay();
  }

  // The real game's frame that belongs to one of the run.
  gameFrame(index) {
    return this.parted === null ? index : Math.min(index, this.parted);
  }

  // Whether both are at the same moment, so that they can be laid over each other.
  get together() {
    return this.parted === null || this.shownModel === null || this.shownModel <= this.parted;
  }

  get way() {
    if (!this.beside) return "one";
    return this.together ? this.choice : "two";
  }

  lay() {
    const way = this.way;
    find("compare").hidden = !this.beside;
    for (const radio of this.radios) {
      radio.checked = radio.value === (this.beside ? way : this.choice);
      radio.disabled = radio.value !== "two" && !this.together;
    }
    find("game-caption").textContent = this.together ? "The real game" : `The real game, standing still at frame ${this.parted}`;
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
    const together = this.together;
    this.shownModel = index;
    if (this.together !== together) this.lay();
    else this.compare();
    return bitmap;
  }

  // No bytes: that frame is no longer there.
  async showGame(index, bytes) {
    const bitmap = bytes ? await this.game.show(bytes) : null;
    if (!bitmap) this.game.clear();
    this.shownGame = bitmap ? index : null;
    this.compare();
  }

  // |model − game| of two frames of the same number.
  compare() {
    if (this.way !== "difference") return;
    if (this.shownGame === null) {
      this.pen.clearRect(0, 0, this.difference.width, this.difference.height);
      find("difference-caption").textContent = "Difference";
    }
    if (this.shownModel === null || this.shownModel !== this.shownGame) return;
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
