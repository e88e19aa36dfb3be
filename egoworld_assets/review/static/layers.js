// The layers of a clip's frames as the server has them, which of them are on, and what they say in words.

import { made } from "./plots.js";

const CHUNK = 32;
const MOST_CHUNKS = 40;
// a robot hand is larger than a person's, and over the picture hides what is to be checked
const OFF_AT_FIRST = ["boxes", "robots over"];
export const OVER = "robots over";

// What holds for all frames of a clip.
export async function aboutOf(base) {
  const answer = await fetch(`${base}/about.json`);
  const about = await answer.json();
  if (!answer.ok) throw new Error(about.error);
  return about;
}

export class Layers {
  // onCame is told the frames that came, onSay what a person should know.
  constructor(base, about, onCame, onSay) {
    Object.assign(this, { base, about, onCame, onSay, chunks: new Map() });
  }

  // The layers of a frame; null until they have come.
  of(frame) {
    const at = Math.floor((frame - this.about.frame_start) / CHUNK);
    for (const n of [at, at + 1]) this.#fetch(n);
    const chunk = this.chunks.get(at);
    return Array.isArray(chunk) ? chunk[(frame - this.about.frame_start) % CHUNK] : null;
  }

  async #fetch(n) {
    const { base, about, chunks } = this;
    const first = about.frame_start + n * CHUNK;
    if (chunks.has(n) || first >= about.frame_end) return;
    chunks.set(n, "on its way");
    if (chunks.size > MOST_CHUNKS) chunks.delete(chunks.keys().next().value);
    try {
      const answer = await fetch(`${base}/frames.json?first=${first}&n=${CHUNK}`);
      const came = await answer.json();
      if (!answer.ok) throw new Error(came.error);
      chunks.set(n, came);
      this.onCame(first, first + CHUNK);
    } catch (error) {
      this.onSay(`The layers of frames from ${first} on did not come: ${error.message}`);
    }
  }
}

function remembered() {
  try {
    return JSON.parse(localStorage.getItem("egoworld-layers-off"));
  } catch {
    return null;
  }
}

// Which layers are on, as boxes to tick; kept in this browser.
export class Switches {
  constructor(field, about, onTurn) {
    Object.assign(this, { field, about, onTurn, off: new Set(remembered() ?? OFF_AT_FIRST) });
    this.isOn = (layer) => !this.off.has(layer);
    Object.keys(about.layers).forEach((layer, i) => this.#add(layer, `${i + 1} ${layer}${about.without[layer] ? " (none)" : ""}`));
    this.#add(OVER, "r robots over the picture");
    const missing = Object.entries(about.without).map(([layer, why]) => `no ${layer}: ${why}`);
    if (missing.length) field.append(made("p", "small", missing.join("; ")));
  }

  // Turn the layer of a key the other way; whether there is one.
  press(key) {
    const layer = key === "r" ? OVER : /^[1-9]$/.test(key) ? Object.keys(this.about.layers)[key - 1] : undefined;
    if (layer) this.turn(layer, !this.isOn(layer));
    return Boolean(layer);
  }

  turn(layer, on) {
    this.off[on ? "delete" : "add"](layer);
    localStorage.setItem("egoworld-layers-off", JSON.stringify([...this.off]));
    this.field.querySelector(`[name="${layer}"]`).checked = on;
    this.onTurn();
  }

  #add(layer, text) {
    const label = made("label", "layer");
    const box = made("input");
    Object.assign(box, { type: "checkbox", name: layer, checked: this.isOn(layer) });
    label.append(box, ` ${text}`);
    box.addEventListener("change", () => this.turn(layer, box.checked));
    this.field.append(label);
  }
}

const sure = (score) => (score === null ? "" : ` (${score.toFixed(2)})`);

// All that is in a frame, in words: the layer, the stage it comes from, and the words.
export function* words(layers) {
  for (const flag of layers.flags) yield ["flags", "agreement", `⚠ ${flag.name}: ${flag.disagreement}`];
  for (const event of layers.events) yield ["events", "events", `${event.hand} hand: ${event.phase} ${event.name}${sure(event.score)}`];
  for (const hold of layers.holds) yield ["holds", "movement", `${hold.name}: ${hold.state ?? "movement unknown"}, held by ${hold.held_by}${sure(hold.score)}`];
  for (const hand of layers.hands) {
    const how = hand.solved ? (hand.observed ? "seen" : "filled in") : "no pose, image points alone";
    yield ["hands", hand.stage, `${hand.hand} hand ${hand.stage === "fusion" ? "after fusion" : "as found"}: ${how}${sure(hand.score)}`];
  }
  for (const thing of layers.objects) yield ["objects", "object_pose", `${thing.name}: ${thing.stands ? "pose verified" : `pose not verified, ${thing.reason}`}${sure(thing.score)}`];
  for (const robot of layers.robots) {
    const error = robot.residual_m === null ? robot.reason : `fingertips ${(1000 * robot.residual_m).toFixed(1)} mm off`;
    yield ["robots", "mapping", `${robot.robot} ${robot.hand}: ${error}`];
  }
  for (const mask of layers.masks) yield ["masks", "masks", `mask of ${mask.name}${mask.observed ? "" : ", carried"}${sure(mask.score)}`];
  for (const box of layers.boxes) yield ["boxes", "detections", `box of ${box.name}, ${box.source}${sure(box.score)}`];
}

// The words of a frame as a list, each with a link to where it comes from.
export function listed(base, frame, layers, isOn) {
  const rows = layers.processed ? [...words(layers)].filter(([layer]) => isOn(layer)) : [];
  const items = rows.map(([, stage, text]) => {
    const item = made("li");
    const link = made("a", "", text);
    link.href = `${base}/lineage?stage=${stage}&frame=${frame}`;
    item.append(link);
    return item;
  });
  if (!layers.processed) items.push(made("li", "", "This frame was not processed: nothing is known of it."));
  else if (!items.length) items.push(made("li", "", "Nothing was found in this frame."));
  if (!layers.metric) items.push(made("li", "", "⚠ Lengths rest on an assumed focal length: they are right up to an unknown factor."));
  return items;
}
