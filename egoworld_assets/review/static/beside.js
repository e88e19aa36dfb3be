// A clip in two runs: one video, shown twice in the same frame, each with the layers of its run; plots of both in one.

import { Layers, Switches, aboutOf, listed, words } from "./layers.js";
import { drawOver, fitted } from "./overlay.js";
import { Player, bindPlayer } from "./player.js";
import { Plots } from "./plots.js";

const place = document.getElementById("clip");
const get = (id) => document.getElementById(id);
const video = place.querySelector("video");
const [hands, said] = [get("hands"), get("said")];
let sides, player, plots, switches;
let searching = false;

const say = (text) => {
  said.textContent = text;
  said.hidden = !text;
};

function show(frame) {
  drawPicture();
  const shown = sides.map((side) => side.layers.of(frame));
  const texts = shown.map((layers) => new Set(layers ? inWords(layers) : []));
  sides.forEach((side, i) => {
    drawOver(get(`over-${side.name}`), side.about.size_px, shown[i], side.about.bones, switches.isOn, hands.value);
    if (!shown[i]) return;
    const items = listed(side.base, frame, shown[i], switches.isOn);
    for (const item of items) mark(item, shown[1 - i] && !texts[1 - i].has(item.textContent));
    get(`words-${side.name}`).replaceChildren(...items);
  });
  get("scrub").value = frame;
  get("now").textContent = `frame ${frame}`;
  place.dataset.frame = frame;
  plots.show(frame);
}

const inWords = (layers) => [...words(layers)].filter(([layer]) => switches.isOn(layer)).map(([, , text]) => text);

function mark(item, differs) {
  if (!differs || !item.querySelector("a")) return;
  item.className = "differs";
  item.prepend("≠ ");
}

// The second picture is the first one's: they cannot be out of step.
function drawPicture() {
  const canvas = get("picture-b");
  const context = fitted(canvas);
  if (player.times && video.readyState >= 2) context.drawImage(video, 0, 0, canvas.width, canvas.height);
}

// Go to the next frame in which the words of both differ; it goes on when layers come that were not there yet.
function nextDifference() {
  searching = false;
  for (let frame = player.frame + 1; frame <= player.last; frame++) {
    const [a, b] = sides.map((side) => side.layers.of(frame));
    if (!a || !b) return (searching = true), say(`Looking for a difference: frame ${frame} is on its way.`);
    if (inWords(a).join("\n") !== inWords(b).join("\n")) return say(""), player.seek(frame);
  }
  say("The words of both are the same to the end of the clip.");
}

// Whoever does something else is not taken to another frame when layers come.
function endSearch() {
  if (searching) say("");
  searching = false;
}

// Plots and stretches of both runs in one: each line says whose it is.
function together(a, b) {
  const frames = [...new Set([...a.about.frames, ...b.about.frames])].sort((x, y) => x - y);
  const lines = (side, title) => {
    const own = new Map(side.about.frames.map((frame, i) => [frame, i]));
    const found = side.about.plots.find((plot) => plot.title === title)?.lines ?? [];
    const spread = (line) => frames.map((frame) => (own.has(frame) ? line.values[own.get(frame)] : null));
    return found.map((line) => ({ ...line, run: side.name.toUpperCase(), base: side.base, values: spread(line) }));
  };
  const known = new Map([...a.about.plots, ...b.about.plots].map((plot) => [plot.title, plot]));
  const plots = [...known.values()].map((plot) => ({ ...plot, lines: [...lines(a, plot.title), ...lines(b, plot.title)] }));
  const bands = [a, b].flatMap((side) => side.about.bands.map((band) => ({ ...band, of: `${side.name.toUpperCase()} ${band.of}` })));
  return { ...a.about, frames, plots, bands };
}

async function begin() {
  const came = (first, end) => {
    if (player.frame >= first && player.frame < end) show(player.frame);
    if (searching) nextDifference();
  };
  sides = await Promise.all(
    ["a", "b"].map(async (name) => {
      const base = place.dataset[name];
      const about = await aboutOf(base);
      return { name, base, about, layers: new Layers(base, about, came, say) };
    }),
  );
  const [a] = sides;
  for (const screen of place.querySelectorAll(".screen")) screen.style.aspectRatio = a.about.size_px.join(" / ");
  switches = new Switches(get("layers"), a.about, () => show(player.frame));
  plots = new Plots(get("plots"), together(...sides), a.base, (frame) => player.seek(frame));
  player = new Player(video, a.about, show, say);
  say("");
  for (const what of ["keydown", "click", "input"]) addEventListener(what, endSearch, true);
  bindPlayer(player, place, (key) => switches.press(key) || (key === "d" ? (nextDifference(), true) : false));
  for (const ready of ["loadeddata", "seeked", "canplay"]) video.addEventListener(ready, drawPicture);
  hands.addEventListener("change", () => show(player.frame));
  new ResizeObserver(() => show(player.frame)).observe(get("over-a"));
  await player.load();
  place.dataset.ready = "yes";
}

begin().catch((error) => say(`The clip cannot be shown in both: ${error.message}`));
