// The page of a clip: puts player, layers and plots together, and gives them keys.

import { Layers, Switches, aboutOf, listed } from "./layers.js";
import { drawOver, drawPath, drawRobot } from "./overlay.js";
import { Player, bindPlayer } from "./player.js";
import { Plots } from "./plots.js";

const place = document.getElementById("clip");
const base = place.dataset.base;
const get = (id) => document.getElementById(id);
const [video, over, scrub, now, said, hands] = [place.querySelector("video"), get("over"), get("scrub"), get("now"), get("said"), get("hands")];
let about, player, plots, layers, switches;

const say = (text) => {
  said.textContent = text;
  said.hidden = !text;
};

function show(frame) {
  const { isOn } = switches;
  const shown = layers.of(frame);
  drawOver(over, about.size_px, shown, about.bones, isOn, hands.value);
  for (const hand of ["left", "right"]) drawRobot(get(`robot-${hand}`), shown?.robots.find((each) => each.hand === hand), isOn("robots"));
  drawPath(get("path"), about.camera_path, frame, isOn("camera"));
  scrub.value = frame;
  const time = player.times?.[frame - about.frame_start];
  now.textContent = `frame ${frame}` + (time === undefined ? "" : `, ${time.toFixed(3)} s`);
  place.dataset.frame = frame;
  plots.show(frame);
  if (shown) get("things").replaceChildren(...listed(base, frame, shown, isOn));
}

const KEYS = {
  j: () => document.querySelector("a[rel=next]")?.click(),
  k: () => document.querySelector("a[rel=prev]")?.click(),
  v: () => get("judge").querySelector("[name=verdict]").focus(),
  h: () => {
    hands.selectedIndex = (hands.selectedIndex + 1) % hands.length;
    show(player.frame);
  },
};

// The judge's name is kept in this browser.
function rememberJudge() {
  const name = get("judge").querySelector("[name=judge]");
  name.value ||= localStorage.getItem("egoworld-judge") ?? "";
  get("judge").addEventListener("submit", () => localStorage.setItem("egoworld-judge", name.value));
}

async function begin() {
  about = await aboutOf(base);
  place.querySelector(".screen").style.aspectRatio = about.size_px.join(" / ");
  switches = new Switches(get("layers"), about, () => show(player.frame));
  plots = new Plots(get("plots"), about, base, (frame) => player.seek(frame));
  player = new Player(video, about, show, say);
  layers = new Layers(base, about, (first, end) => player.frame >= first && player.frame < end && show(player.frame), say);
  say("");
  bindPlayer(player, place, (key) => switches.press(key) || (KEYS[key] ? (KEYS[key](), true) : false));
  hands.addEventListener("change", () => show(player.frame));
  new ResizeObserver(() => show(player.frame)).observe(over);
  await player.load();
  place.dataset.ready = "yes";
}

rememberJudge();
begin().catch((error) => say(`The clip cannot be shown: ${error.message}`));
