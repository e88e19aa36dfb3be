// Plots of a clip's numbers over its frames, raw beside fused, in step with the player. A click shows the frame. Each number links to where it is from.

import { fitted, trace } from "./overlay.js";

const INKS = ["#2f7de1", "#e07b1c", "#2e9e46", "#a855c7", "#c23b4a", "#0f9aa8", "#8a7a1f", "#7a7f88"];
const DASHES = [[], [6, 3], [2, 3], [8, 3, 2, 3]];

export class Plots {
  constructor(place, about, base, onPick) {
    Object.assign(this, { place, about, base, onPick });
    this.span = [about.frame_start, about.frame_end - 1];
    this.drawn = about.plots.map((plot) => this.#add(plot.title, plot.unit, (canvas) => this.#lines(canvas, plot), plot.lines));
    if (about.bands.length) this.drawn.push(this.#add("Holds, events, and what cannot be right", "", (canvas) => this.#bands(canvas)));
    if (!this.drawn.length) place.append(made("p", "", "No table of this clip has numbers to plot."));
    new ResizeObserver(() => this.drawn.forEach((each) => each.draw())).observe(place);
  }

  // Move the cursors to a frame, and say its numbers.
  show(frame) {
    const [first, last] = this.span;
    const left = `${(100 * (frame - first)) / Math.max(last - first, 1)}%`;
    const at = this.about.frames.indexOf(frame);
    for (const { cursor, numbers } of this.drawn) {
      cursor.style.left = left;
      for (const { value, link, line } of numbers) {
        const number = at < 0 ? null : line.values[at];
        value.textContent = number === null ? "–" : String(number);
        link.href = `${line.base ?? this.base}/lineage?stage=${line.stage}&column=${line.column}&frame=${frame}`;
      }
    }
  }

  #add(title, unit, paint, lines = []) {
    const figure = made("figure", "plot");
    figure.append(made("figcaption", "", unit ? `${title}, ${unit}` : title));
    const box = made("div", "graph");
    const canvas = made("canvas");
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", `${title} over the frames; the numbers of this frame are below`);
    const cursor = made("i", "cursor");
    box.append(canvas, cursor);
    if (!lines.length) canvas.style.height = `${1.3 * this.#rows().length + 0.4}rem`;
    box.addEventListener("click", (event) => {
      const { left, width } = box.getBoundingClientRect();
      const [first, last] = this.span;
      this.onPick(Math.round(first + ((event.clientX - left) / width) * (last - first)));
    });
    const list = made("ul", "numbers");
    const both = new Set(lines.map((line) => line.look)).size > 1;
    const numbers = lines.map((line, i) => this.#number(list, line, i, both));
    figure.append(box, list);
    this.place.append(figure);
    const draw = () => paint(canvas);
    draw();
    return { draw, cursor, numbers };
  }

  #number(list, line, i, both) {
    const item = made("li");
    const link = made("a");
    link.title = `${line.stage}.${line.column}: where it comes from`;
    const key = made("canvas", "key");
    const value = made("b", "n", "–");
    const look = !both ? "" : line.look === "fused" ? ", after fusion" : ", as found";
    link.append(key, ` ${line.run ? `${line.run} ` : ""}${line.name}${look} `, value);
    item.append(link);
    list.append(item);
    requestAnimationFrame(() => {
      const context = fitted(key);
      this.#pen(context, line, i);
      context.beginPath();
      trace(context, [[0, key.height / 2], [key.width, key.height / 2]]);
      context.stroke();
    });
    return { value, link, line };
  }

  // Raw is thin and dashed, fused is bold and whole; of many lines dashes tell more apart than colours alone. Those of a second run have dashes of their own.
  #pen(context, line, i) {
    const ratio = window.devicePixelRatio || 1;
    const raw = line.look === "raw" && line.column !== "qpos_rad";
    context.strokeStyle = line.name.startsWith("left") ? INKS[0] : line.name.startsWith("right") ? INKS[1] : INKS[(i + 2) % INKS.length];
    if (line.column === "qpos_rad") context.strokeStyle = INKS[i % INKS.length];
    context.lineWidth = (raw ? 1.2 : 2.2) * ratio;
    const other = line.run === "B" ? (raw ? [1, 3] : [9, 4]) : null;
    const dash = other ?? (line.column === "qpos_rad" ? DASHES[Math.floor(i / INKS.length) % DASHES.length] : raw ? [4, 3] : []);
    context.setLineDash(dash.map((part) => part * ratio));
  }

  #lines(canvas, plot) {
    const context = fitted(canvas);
    const numbers = plot.lines.flatMap((line) => line.values).filter((value) => value !== null);
    let [least, most] = [Math.min(...numbers), Math.max(...numbers)];
    if (least > 0 && least < 0.5 * most) least = 0;
    if (least === most) [least, most] = [least - 0.5, most + 0.5];
    const y = (value) => canvas.height * (0.96 - (0.92 * (value - least)) / (most - least));
    plot.lines.forEach((line, i) => {
      this.#pen(context, line, i);
      context.beginPath();
      let open = false;
      line.values.forEach((value, n) => {
        if (value === null) return (open = false);
        context[open ? "lineTo" : "moveTo"](this.#x(canvas, this.about.frames[n]), y(value));
        open = true;
      });
      context.stroke();
    });
    context.setLineDash([]);
    this.#text(context, canvas, String(+most.toPrecision(3)), 0);
    this.#text(context, canvas, String(+least.toPrecision(3)), 1);
  }

  #text(context, canvas, text, at) {
    const ratio = window.devicePixelRatio || 1;
    context.fillStyle = getComputedStyle(canvas).color;
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.fillText(text, 3 * ratio, at ? canvas.height - 3 * ratio : 11 * ratio);
  }

  #rows() {
    return [...new Set(this.about.bands.map((band) => band.of))];
  }

  #bands(canvas) {
    const context = fitted(canvas);
    const rows = this.#rows();
    const ratio = window.devicePixelRatio || 1;
    const height = canvas.height / rows.length;
    const words = [...new Set(this.about.bands.map((band) => band.word))];
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    for (const band of this.about.bands) {
      const [left, right] = [this.#x(canvas, band.first - 0.5), this.#x(canvas, band.last + 0.5)];
      const top = rows.indexOf(band.of) * height;
      context.globalAlpha = 0.35;
      context.fillStyle = INKS[words.indexOf(band.word) % INKS.length];
      context.fillRect(left, top + ratio, Math.max(right - left, ratio), height - 2 * ratio);
      context.globalAlpha = 1;
      context.fillStyle = getComputedStyle(canvas).color;
      const text = `${band.of}: ${band.word}`;
      if (right - left > 24 * ratio) context.fillText(text, left + 3 * ratio, top + 0.7 * height, right - left - 4 * ratio);
    }
  }

  #x(canvas, frame) {
    const [first, last] = this.span;
    return (canvas.width * (frame - first)) / Math.max(last - first, 1);
  }
}

export function made(name, kind = "", text = "") {
  const element = document.createElement(name);
  if (kind) element.className = kind;
  if (text) element.textContent = text;
  return element;
}
