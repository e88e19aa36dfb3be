// The page of a clip: puts player, layers and plots together, and gives them keys.

import { drawOver, drawPath, drawRobot } from "./overlay.js";
import { Player } from "./player.js";
import { Plots, made } from "./plots.js";

const CHUNK = 32;
const MOST_CHUNKS = 40;
// a robot hand is larger than a person's, and over the picture hides what is to be checked
const OFF_AT_FIRST = ["boxes", "robots over"];
const OVER = "robots over";
const place = document.getElementById("clip");
const base = place.dataset.base;
const get = (id) => document.getElementById(id);
const [video, over, scrub, now, said] = [place.querySelector("video"), get("over"), get("scrub"), get("now"), get("said")];
const [things, hands, layersField] = [get("things"), get("hands"), get("layers")];
const chunks = new Map();
const off = new Set(remembered() ?? OFF_AT_FIRST);
let about, player, plots;

function remembered() {
  try {
    return JSON.parse(localStorage.getItem("egoworld-layers-off"));
  } catch {
    return null;
  }
}

const say = (text) => {
  said.textContent = text;
  said.hidden = !text;
};

const isOn = (layer) => !off.has(layer);

// The layers of a frame; null until they have come, when the frame is drawn again.
function layersOf(frame) {
  const at = Math.floor((frame - about.frame_start) / CHUNK);
  for (const n of [at, at + 1]) fetchChunk(n);
  const chunk = chunks.get(at);
  return Array.isArray(chunk) ? chunk[(frame - about.frame_start) % CHUNK] : null;
}

async function fetchChunk(n) {
  const first = about.frame_start + n * CHUNK;
  if (chunks.has(n) || first >= about.frame_end) return;
  chunks.set(n, "on its way");
  if (chunks.size > MOST_CHUNKS) chunks.delete(chunks.keys().next().value);
  try {
    const answer = await fetch(`${base}/frames.json?first=${first}&n=${CHUNK}`);
    const came = await answer.json();
    if (!answer.ok) throw new Error(came.error);
    chunks.set(n, came);
    if (Math.floor((player.frame - about.frame_start) / CHUNK) === n) show(player.frame);
  } catch (error) {
    say(`The layers of frames from ${first} on did not come: ${error.message}`);
  }
}

function show(frame) {
  const layers = layersOf(frame);
  drawOver(over, about.size_px, layers, about.bones, isOn, hands.value);
  for (const hand of ["left", "right"]) drawRobot(get(`robot-${hand}`), layers?.robots.find((each) => each.hand === hand), isOn("robots"));
  drawPath(get("path"), about.camera_path, frame, isOn("camera"));
  scrub.value = frame;
  const time = player.times?.[frame - about.frame_start];
  now.textContent = `frame ${frame}` + (time === undefined ? "" : `, ${time.toFixed(3)} s`);
  get("clip").dataset.frame = frame;
  plots.show(frame);
  if (layers) list(frame, layers);
}

// All that is in the frame, in words, each with a link to where it comes from.
function list(frame, layers) {
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
  things.replaceChildren(...items);
}

const sure = (score) => (score === null ? "" : ` (${score.toFixed(2)})`);

function* words(layers) {
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

function addLayers() {
  Object.keys(about.layers).forEach((layer, i) => addLayer(layer, `${i + 1} ${layer}${about.without[layer] ? " (none)" : ""}`));
  addLayer(OVER, "r robots over the picture");
  const missing = Object.entries(about.without).map(([layer, why]) => `no ${layer}: ${why}`);
  if (missing.length) layersField.append(made("p", "small", missing.join("; ")));
}

function addLayer(layer, text) {
  const label = made("label", "layer");
  const box = made("input");
  Object.assign(box, { type: "checkbox", name: layer, checked: isOn(layer) });
  label.append(box, ` ${text}`);
  box.addEventListener("change", () => turn(layer, box.checked));
  layersField.append(label);
}

function turn(layer, on) {
  off[on ? "delete" : "add"](layer);
  localStorage.setItem("egoworld-layers-off", JSON.stringify([...off]));
  layersField.querySelector(`[name="${layer}"]`).checked = on;
  show(player.frame);
}

const KEYS = {
  " ": () => player.toggle(),
  ",": () => player.step(-1),
  ".": () => player.step(1),
  Home: () => player.seek(player.first),
  End: () => player.seek(player.last),
  j: () => document.querySelector("a[rel=next]")?.click(),
  k: () => document.querySelector("a[rel=prev]")?.click(),
  v: () => get("judge").querySelector("[name=verdict]").focus(),
  r: () => turn(OVER, !isOn(OVER)),
  h: () => {
    hands.selectedIndex = (hands.selectedIndex + 1) % hands.length;
    show(player.frame);
  },
};

function onKey(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("textarea, select, input:not([type=range], [type=checkbox], [type=radio])")) return;
  const arrow = { ArrowLeft: -1, ArrowRight: 1 }[key];
  const layer = /^[1-9]$/.test(key) ? Object.keys(about.layers)[key - 1] : undefined;
  if (key === " " && target.closest("button, summary, a, input")) return;
  if (target.type === "radio" && (arrow || key === " ")) return;
  if (arrow) player.step(arrow * (event.shiftKey ? 10 : 1));
  else if (layer) turn(layer, !isOn(layer));
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
}

// The frame that the address names.
function asked() {
  const found = /[#&]frame=(\d+)/.exec(location.hash);
  return found && Math.max(player.first, Math.min(player.last, Number(found[1])));
}

// The judge's name is kept in this browser.
function rememberJudge() {
  const name = get("judge").querySelector("[name=judge]");
  name.value ||= localStorage.getItem("egoworld-judge") ?? "";
  get("judge").addEventListener("submit", () => localStorage.setItem("egoworld-judge", name.value));
}

async function begin() {
  const answer = await fetch(`${base}/about.json`);
  about = await answer.json();
  if (!answer.ok) throw new Error(about.error);
  addLayers();
  place.querySelector(".screen").style.aspectRatio = about.size_px.join(" / ");
  plots = new Plots(get("plots"), about, base, (frame) => player.seek(frame));
  player = new Player(video, about, show, say);
  player.frame = asked() ?? player.first;
  say("");
  show(player.frame);
  scrub.addEventListener("input", () => (video.pause(), player.seek(Number(scrub.value))));
  hands.addEventListener("change", () => show(player.frame));
  for (const [name, act] of Object.entries({ back: () => player.step(-1), play: () => player.toggle(), on: () => player.step(1) })) {
    place.querySelector(`[data-do=${name}]`).addEventListener("click", act);
  }
  const play = place.querySelector("[data-do=play]");
  for (const what of ["play", "pause"]) {
    video.addEventListener(what, () => {
      play.textContent = video.paused ? "Play" : "Pause";
      play.setAttribute("aria-pressed", String(!video.paused));
      if (video.paused) history.replaceState(null, "", `#frame=${player.frame}`);
    });
  }
  addEventListener("keydown", onKey);
  addEventListener("hashchange", () => player.seek(asked() ?? player.frame));
  new ResizeObserver(() => show(player.frame)).observe(over);
  await player.load();
  place.dataset.ready = "yes";
}

rememberJudge();
begin().catch((error) => say(`The clip cannot be shown: ${error.message}`));
