// What both halves of the page use: asking the server, following a WebSocket, drawing frames, choosing a beginning.

export const find = (id) => document.getElementById(id);

export function say(text) {
  const news = find("news");
  news.textContent = text ?? "";
  news.hidden = !text;
}

// What the server answers, as JSON unless `read` takes it otherwise; its own words where it refuses.
export async function ask(path, options = {}, read = (response) => response.json()) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. Is it still running?");
  }
  if (response.ok) return read(response);
  const answer = await response.json().catch(() => ({}));
  throw new Error(capital(answer.error ?? `The server answered ${response.status}`));
}

export const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function fillChoices(select, choices, chosen) {
  select.replaceChildren(...choices.map(([value, text]) => new Option(text, value, value === chosen, value === chosen)));
}

const SPEEDS = {
  exact: "Exact: slowest",
  balanced: "Balanced",
  fast: "Fast",
  realtime: "Real time",
};
export const speedChoices = (model) => model.speeds.map((name) => [name, SPEEDS[name] ?? name]);

export function paceChoices(model) {
  const most = Math.min(model.max_interval, 8);
  return Array.from({ length: most }, (_, index) => {
    const rate = model.frame_rate / (index + 1);
    return [String(index + 1), `${Number(rate.toFixed(1))} frames/s`];
  });
}

// A WebSocket that comes back by itself. `path` is asked at each attempt; `end` is message why it is over for good.
const FINAL = new Set([1000, 1008, 1013, 4000, 4004]);
const ATTEMPTS = 8;

export class Line {
  constructor(path, { message, frame, broken, end }) {
    Object.assign(this, { path, message, frame, broken, end, attempt: 0, over: false });
    this.open();
  }

  open() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const socket = (this.socket = new WebSocket(`${scheme}//${location.host}${this.path()}`));
    socket.binaryType = "arraybuffer";
    let next = null; // what the JSON line said of the binary message that follows it
    socket.onmessage = (event) => {
      if (socket !== this.socket || this.over) return;
      this.attempt = 0;
      if (event.data instanceof ArrayBuffer) {
        this.frame(next, event.data);
        return;
      }
      const message = JSON.parse(event.data);
      if (message.type === "frame") next = message;
      else this.message(message);
    };
    socket.onclose = (event) => {
      if (socket !== this.socket || this.over) return;
      if (FINAL.has(event.code) || this.attempt >= ATTEMPTS) {
        this.over = true;
        this.end(FINAL.has(event.code) ? null : "The connection to the server was lost.");
        return;
      }
      this.broken?.();
      setTimeout(() => this.over || this.open(), Math.min(250 * 2 ** this.attempt++, 4000));
    };
  }

  send(message) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(message));
  }

  close() {
    this.over = true;
    this.socket.close(1000);
  }
}

// Frames on a canvas, in order. `show` gives the picture that was drawn; null of one that cannot be read, which is left
// out, and the visitor is told.
export class View {
  constructor(canvas, width, height) {
    Object.assign(canvas, { width, height });
    canvas.classList.toggle("crisp", Math.min(width, height) <= 128); // small pictures look better in blocks than in fog
    this.context = canvas.getContext("2d");
    this.last = Promise.resolve();
  }

  show(bytes) {
    const picture = createImageBitmap(new Blob([bytes], { type: "image/jpeg" })).catch(() => null);
    this.last = Promise.all([picture, this.last]).then(([bitmap]) => {
      if (bitmap) this.draw(bitmap);
      else say("A frame could not be read and is left out.");
      return bitmap;
    });
    return this.last;
  }

  clear() {
    this.context.clearRect(0, 0, this.context.canvas.width, this.context.canvas.height);
  }

  draw(picture) {
    this.context.drawImage(picture, 0, 0, this.context.canvas.width, this.context.canvas.height);
  }
}

// First frames, an upload, or nothing: a group of tiles.
export class Beginnings {
  constructor(box, model, changed) {
    this.changed = changed;
    [this.upload, this.isClip] = [null, false];
    this.name = box.id;
    this.model = model;
    this.note = element("p", { class: "begin-text soft", role: "status" });
    const tiles = model.first_frames.map((title, number) =>
      this.tile(`first-${number}`, title, this.image(`/api/first/${number}.jpg`, title)));
    this.file = element("input", { type: "file", accept: "image/*,video/*", "aria-label": "Upload a picture or clip" });
    this.uploadText = element("span", {}, "Your picture or clip");
    const upload = element("label", { title: "A picture or a short clip of your own" }, this.uploadText, this.file);
    this.uploadTile = upload;
    box.replaceChildren(...tiles, upload, this.tile("nothing", "Nothing: the model begins by itself", "Nothing"), this.note);
    this.box = box;
    this.choose(model.first_frames.length ? "first-0" : "nothing");
    this.file.onchange = () => this.take(this.file.files[0]);
    upload.ondragover = (event) => { event.preventDefault(); upload.classList.add("over"); };
    upload.ondragleave = () => upload.classList.remove("over");
    upload.ondrop = (event) => {
      event.preventDefault();
      upload.classList.remove("over");
      this.take(event.dataTransfer.files[0]);
    };
  }

  tile(value, title, content) {
    const radio = element("input", { type: "radio", name: this.name, value, "aria-label": title });
    radio.onchange = () => this.changed(this.chosen());
    return element("label", { title }, content, radio);
  }

  image(src, alt) {
    const image = element("img", { src, alt });
    image.onerror = () => { this.note.textContent = `“${alt}” could not be loaded.`; };
    return image;
  }

  radios() {
    return [...this.box.querySelectorAll("input[type=radio]")];
  }

  choose(value) {
    for (const radio of this.radios()) radio.checked = radio.value === value;
  }

  async take(file) {
    if (!file) return;
    if (file.size > this.model.max_upload_mb * 1e6) {
      this.note.textContent = `That file is too large: at most ${this.model.max_upload_mb} MB.`;
      return;
    }
    this.note.textContent = "Uploading…";
    try {
      const answer = await ask("/api/uploads", { method: "POST", body: file });
      [this.upload, this.isClip] = [answer.upload, answer.kind === "clip"];
      const tile = this.tile("upload", "Your upload", this.image(`/api/uploads/${answer.upload}.jpg`, "Your upload"));
      tile.append(element("span", { class: "tag" }, answer.kind === "clip" ? `clip, ${answer.frames} frames` : "yours"));
      this.box.querySelector("input[value=upload]")?.parentElement.remove();
      this.uploadTile.before(tile);
      this.choose("upload");
      this.note.textContent = this.model.world
        ? `This model has seen only ${this.model.world}; other pictures will turn into it.` : "";
      this.changed(this.chosen());
    } catch (error) {
      this.note.textContent = error.message;
    } finally {
      this.file.value = "";
    }
  }

  chosen() {
    const value = this.radios().find((radio) => radio.checked)?.value ?? "nothing";
    if (value.startsWith("first-")) return { first: Number(value.slice(6)) };
    return value === "upload" ? { upload: this.upload } : {};
  }

  chooseAnother() {
    const firsts = this.radios().filter((radio) => radio.value.startsWith("first-"));
    const now = firsts.findIndex((radio) => radio.checked);
    if (firsts.length) this.choose(firsts[(now + 1) % firsts.length].value);
  }

  picture() {
    return this.radios().find((radio) => radio.checked)?.parentElement.querySelector("img") ?? null;
  }
}
