// Boxes and points over a picture, drawn by a pointer. A box is in pixels from the picture's corner; a point is where the centre of the first pixel is (0, 0).

import { drawOver, fitted, strokes } from "./overlay.js";

const OWN = "#ffd23c";
const OTHER = "#5adc64";
const PROPOSED = "#66c7ff";
const CLICK_PX = 4;

export class Drawing {
  // how: tool() says what is drawn, onBox and onPoint are told what was.
  constructor(canvas, size, how) {
    Object.assign(this, { canvas, size, how, shown: null, preview: null, from: null, to: null });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    canvas.addEventListener("pointerup", (event) => this.#up(event));
    canvas.addEventListener("pointercancel", () => this.#end());
    new ResizeObserver(() => this.draw()).observe(canvas);
  }

  show(shown) {
    this.shown = shown;
    this.draw();
  }

  draw() {
    const { canvas, size, shown } = this;
    if (!shown) return;
    if (this.preview) drawOver(canvas, size, this.preview, [], (layer) => layer === "masks" || layer === "objects", "both");
    const context = this.preview ? canvas.getContext("2d") : fitted(canvas);
    const scale = canvas.width / size[0];
    context.setTransform(scale, 0, 0, scale, 0, 0);
    const line = Math.max(1, canvas.width / 640) / scale;
    context.font = `${12 * line}px system-ui, sans-serif`;
    for (const each of shown.proposals) this.#box(context, each.box_px, PROPOSED, line, [4 * line, 3 * line], each.name);
    shown.things.forEach((thing, i) => {
      const prompt = thing.prompts?.find((each) => each.frame_index === shown.frame);
      const color = i === shown.at ? OWN : OTHER;
      if (prompt?.box_px) this.#box(context, prompt.box_px, color, 1.5 * line, [], thing.label || "new thing");
      for (const point of prompt?.points_px ?? []) this.#cross(context, point, color, line);
    });
    if (this.to) this.#box(context, this.#dragged(), OWN, line, [2 * line, 2 * line], "");
    context.setTransform(1, 0, 0, 1, 0, 0);
  }

  #box(context, [x, y, width, height], color, line, dash, text) {
    const corners = [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]];
    strokes(context, [corners], color, line, dash);
    context.strokeStyle = "rgb(0 0 0 / 75%)";
    context.lineWidth = 3 * line;
    context.fillStyle = color;
    const where = [Math.max(x, 2 * line), Math.max(y - 3 * line, 12 * line)];
    context.strokeText(text, ...where);
    context.fillText(text, ...where);
  }

  #cross(context, [x, y], color, line) {
    const arm = 5 * line;
    const [u, v] = [x + 0.5, y + 0.5];
    strokes(context, [[[u - arm, v], [u + arm, v]], [[u, v - arm], [u, v + arm]]], color, line);
  }

  // Where a pointer is, in pixels from the picture's corner, within the picture.
  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.canvas.getBoundingClientRect();
    const within = (share, most) => Math.max(0, Math.min(1, share)) * most;
    return [within((clientX - left) / width, this.size[0]), within((clientY - top) / height, this.size[1])];
  }

  #dragged() {
    const [[a, b], [c, d]] = [this.from.at, this.to];
    return [Math.min(a, c), Math.min(b, d), Math.abs(c - a), Math.abs(d - b)];
  }

  #down(event) {
    if (event.button !== 0) return;
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    this.from = { at: this.#at(event), x: event.clientX, y: event.clientY };
  }

  #move(event) {
    if (!this.from) return;
    const far = Math.hypot(event.clientX - this.from.x, event.clientY - this.from.y) >= CLICK_PX;
    if (far && this.how.tool() === "box") this.to = this.#at(event);
    if (this.to) this.draw();
  }

  #up(event) {
    if (!this.from) return;
    const [at, box] = [this.#at(event), this.to && this.#dragged()];
    this.#end();
    if (box) return box[2] >= 1 && box[3] >= 1 && this.how.onBox(box);
    if (this.how.tool() === "points") return this.how.onPoint(at.map((value) => value - 0.5));
    const hit = this.shown.proposals.filter(({ box_px: [x, y, w, h] }) => at[0] >= x && at[0] <= x + w && at[1] >= y && at[1] <= y + h);
    hit.sort((one, other) => one.box_px[2] * one.box_px[3] - other.box_px[2] * other.box_px[3]);
    if (hit.length) this.how.onBox(hit[0].box_px);
  }

  #end() {
    [this.from, this.to] = [null, null];
    this.draw();
  }
}
