// The page on which a person says what a video shows. All that is drawn is kept as the sidecar has it, and sent as it is.

import { Drawing } from "./drawing.js";
import { made } from "./plots.js";

const get = (id) => document.getElementById(id);
const root = get("annotate");
const form = get("thing");
const SIDES = ["x", "y", "z"];
const BOX = ["left", "top", "width", "height"];
const things = [];
let about, drawing;
let [at, frame, wanted, loading, proposals, changed, edits] = [-1, 0, 0, false, null, false, 0];

const say = (text, where = "said") => {
  get(where).textContent = text;
  get(where).hidden = !text;
};

// What the server says; an error is what it says is wrong.
async function ask(name, body) {
  const sent = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ csrf: root.dataset.csrf, ...body }) };
  const answer = await fetch(`/annotate/${name}`, sent);
  const said = await answer.json().catch(() => ({ error: `The server said ${answer.status}.` }));
  if (!answer.ok) throw new Error(said.error);
  return said;
}

const chosen = () => things[at];
const promptOf = (thing) => thing?.prompts?.find((prompt) => prompt.frame_index === frame);

// The prompt of the chosen thing in this frame, made where there is none.
function promptHere() {
  if (!chosen()) add();
  const thing = chosen();
  thing.prompts ??= [];
  const found = promptOf(thing);
  if (found) return found;
  thing.prompts.push({ frame_index: frame });
  thing.prompts.sort((a, b) => a.frame_index - b.frame_index);
  return promptOf(thing);
}

function touched() {
  changed = true;
  edits += 1;
  drawing.preview = null;
  get("poses").replaceChildren();
  get("next").hidden = true;
  say("", "result");
  show();
}

function setBox(box) {
  promptHere().box_px = box.map((value) => Math.round(10 * value) / 10);
  touched();
}

function addPoint(point) {
  const prompt = promptHere();
  prompt.points_px = [...(prompt.points_px ?? []), point.map((value) => Math.round(10 * value) / 10)];
  touched();
}

function add() {
  things.push({ label: "", prompts: [] });
  at = things.length - 1;
  touched();
}

function show() {
  drawing.show({ things, at, frame, proposals: proposals ?? [] });
  showThings();
  showForm();
  showPrompts();
  showProposals();
}

function button(text, act, name = text) {
  const made_ = made("button", "", text);
  made_.type = "button";
  made_.setAttribute("aria-label", name);
  made_.addEventListener("click", act);
  return made_;
}

function showThings() {
  get("things").replaceChildren(
    ...things.map((thing, i) => {
      const row = made("div", "row");
      const label = made("label", "layer");
      const radio = Object.assign(made("input"), { type: "radio", name: "chosen", checked: i === at });
      radio.addEventListener("change", () => ((at = i), show()));
      label.append(radio, ` ${thing.label || "(no name yet)"}`);
      const remove = () => (things.splice(i, 1), (at = Math.min(at, things.length - 1)), touched());
      row.append(label, button("Remove", remove, `Remove ${thing.label || "this thing"}`));
      return row;
    }),
  );
}

const fields = (names) => names.map((name) => form.elements[name]);
const fill = (field, value) => field !== document.activeElement && (field.value = value ?? "");

function showForm() {
  form.hidden = !chosen();
  if (!chosen()) return;
  fill(form.elements.label, chosen().label);
  fields(SIDES).forEach((field, i) => fill(field, chosen().dimensions_m?.[i]));
  fill(form.elements.mesh, chosen().mesh);
  fields(BOX).forEach((field, i) => fill(field, promptOf(chosen())?.box_px?.[i]));
}

function readForm({ target }) {
  const thing = chosen();
  const numbers = (names) => fields(names).map((field) => (field.value === "" ? null : Number(field.value)));
  if (target.name === "label") thing.label = target.value.trim();
  if (target.name === "mesh") target.value ? (thing.mesh = target.value) : delete thing.mesh;
  if (SIDES.includes(target.name)) {
    const size = numbers(SIDES);
    size.every((side) => side === null) ? delete thing.dimensions_m : (thing.dimensions_m = size);
  }
  if (BOX.includes(target.name)) {
    const box = numbers(BOX);
    if (box.includes(null)) return;
    return setBox(box);
  }
  touched();
}

function showPrompts() {
  const prompts = chosen()?.prompts ?? [];
  get("prompts").replaceChildren(
    ...prompts.map((prompt) => {
      const item = made("li");
      const parts = [prompt.box_px && `box ${prompt.box_px.map(Math.round).join(", ")}`, prompt.points_px?.length && `${prompt.points_px.length} points`];
      const remove = () => (prompts.splice(prompts.indexOf(prompt), 1), touched());
      item.append(button(`frame ${prompt.frame_index}`, () => go(prompt.frame_index)), ` ${parts.filter(Boolean).join(" and ")} `, button("Remove", remove, `Remove what is drawn in frame ${prompt.frame_index}`));
      return item;
    }),
  );
  const lacking = about.clips.filter(([first, end]) => !prompts.some((prompt) => prompt.frame_index >= first && prompt.frame_index < end));
  get("clips").replaceChildren();
  if (!chosen() || about.clips.length < 2) return;
  get("clips").append(lacking.length ? "Each clip needs a box or points of its own where the thing is seen. None yet in the clips from frame " : "Something is drawn in each clip.");
  for (const [first] of lacking) get("clips").append(button(String(first), () => go(first), `Go to frame ${first}`), " ");
}

function showProposals() {
  const list = get("proposals");
  if (proposals === null) {
    const look = button("Look for things here", lookHere);
    return list.replaceChildren(look, made("p", "small", "It takes some seconds: what moves with a hand is found by its motion."));
  }
  if (!proposals.length) return list.replaceChildren(made("p", "small", "None. Draw a box."));
  list.replaceChildren(...proposals.map((each) => button(`${each.name}: ${each.box_px.map(Math.round).join(", ")}`, () => setBox(each.box_px), `Take the box of ${each.name}`)));
}

async function lookHere() {
  const of = frame;
  say("Looking for things in the frames around this one.");
  try {
    const found = await ask("look.json", { frame: of });
    say("");
    if (frame === of && found.frame !== of) {
      await go(found.frame);
      return say(`Frame ${of} is not processed: frame ${found.frame} is.`);
    }
    if (frame === of) proposals = found.proposals;
  } catch (error) {
    say(error.message);
  }
  show();
}

// Show a frame; while one is on its way, only the last one asked for is fetched after it.
async function go(to) {
  wanted = Math.max(0, Math.min(about.n_frames - 1, Math.round(to)));
  [get("scrub").value, get("number").value] = [wanted, wanted];
  if (loading) return;
  loading = true;
  while (true) {
    const next = wanted;
    try {
      const found = await ask(`frame.json?frame=${next}`);
      await load(`/annotate/frame.jpg?frame=${next}`);
      if (next !== frame) drawing.preview = null;
      [frame, proposals] = [next, found.proposals];
      root.dataset.frame = next;
      say("");
    } catch (error) {
      say(error.message);
    }
    if (next === wanted) break;
  }
  loading = false;
  show();
}

function load(address) {
  const picture = get("picture");
  return new Promise((done, failed) => {
    picture.onload = done;
    picture.onerror = () => failed(new Error("This frame cannot be shown: the video does not decode there."));
    picture.src = address;
  });
}

function camera() {
  const field = (name) => get("camera").querySelector(`[name=${name}]`).value;
  const number = (name) => (field(name) === "" ? null : Number(field(name)));
  const error = number("error") === null ? {} : { error_share: number("error") / 100 };
  const kind = field("kind");
  if (kind === "preset") return { preset: field("preset") };
  if (kind === "hfov") return { hfov_deg: number("hfov_deg"), ...error };
  if (kind === "k") return { fx: number("fx"), fy: number("fy"), cx: number("cx"), cy: number("cy"), ...error };
  return null;
}

function showCamera() {
  const kind = get("camera").querySelector("[name=kind]").value;
  for (const label of get("camera").querySelectorAll("[data-of]")) label.hidden = !label.dataset.of.split(" ").includes(kind);
  const { source, model, fx_px, error_share } = about.camera;
  const words = { file: "from the sidecar", container: "as the video's file states", estimated: "estimated from the video", assumed_fov: "assumed: lengths are right up to a factor only" };
  get("camera-now").textContent = `Now: ${model}, focal length ${fx_px.toFixed(0)} pixels, give or take ${(100 * error_share).toFixed(0)} %, ${words[source]}.`;
}

// All that a person said, and the sidecar's state that it was said of.
const sent = () => ({ before: about.before, camera: camera(), objects: things.map((thing) => ({ ...thing, prompts: thing.prompts ?? [] })) });

async function preview() {
  const [of, then, trying] = [frame, edits, `Trying the pose in frame ${frame}: some seconds.`];
  say(trying, "result");
  try {
    const found = await ask("preview.json", { ...sent(), frame: of });
    if (frame !== of || edits !== then) return get("result").textContent === trying && say("", "result");
    drawing.preview = found.layers;
    say(found.poses.length ? "" : "No thing has a box or points in this frame.", "result");
    get("poses").replaceChildren(...found.poses.map((pose) => made("li", "", inWords(pose))));
    show();
  } catch (error) {
    say(error.message, "result");
  }
}

function inWords(pose) {
  const [good, all] = pose.verified;
  const where = pose.z_m === null ? "no pose" : `${pose.converged ? "✓ pose verified" : "⚠ pose not verified"}, ${pose.metric ? `${(100 * pose.z_m).toFixed(0)} cm away` : "distance unknown, as the camera is assumed"}`;
  const at = pose.frame_index === frame ? "" : `, frame ${pose.frame_index}`;
  return `${pose.label}${at}: ${where}${pose.reason ? ` (${pose.reason})` : ""}; verified in ${good} of ${all} frames.`;
}

async function save() {
  const then = edits;
  say("Saving.", "result");
  try {
    const said = await ask("save.json", sent());
    changed = edits !== then;
    let trouble = "";
    about = await ask("about.json").catch((error) => ((trouble = ` But now: ${error.message}`), about));
    say(`Saved ${said.path}${edits === then ? "" : ", without what was changed since"}.${trouble}`, "result");
    get("next").replaceChildren(made("p", "", "Now run:"), ...said.commands.map((command) => made("pre", "", command)));
    get("next").hidden = false;
  } catch (error) {
    return say(`Not saved. ${error.message}`, "result");
  }
  if (edits === then) get("camera").querySelector("[name=kind]").value = "";
  showCamera();
}

const tool = (name) => (document.querySelector(`[name=tool][value=${name}]`).checked = true);
const ACTS = { back: () => go(wanted - 1), on: () => go(wanted + 1), new: () => (add(), form.elements.label.focus()), preview, save };
const KEYS = { ",": ACTS.back, ".": ACTS.on, n: ACTS.new, b: () => tool("box"), p: () => tool("points") };

function onKey(event) {
  const { target, key } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || target.closest("select, input:not([type=range], [type=radio])")) return;
  const arrow = { ArrowLeft: -1, ArrowRight: 1 }[key];
  if (arrow && target.type === "radio") return;
  if (arrow) go(wanted + arrow * (event.shiftKey ? 10 : 1));
  else if (KEYS[key]) KEYS[key]();
  else return;
  event.preventDefault();
}

async function begin() {
  about = await ask("about.json");
  things.push(...about.objects);
  at = things.length ? 0 : -1;
  root.querySelector(".screen").style.aspectRatio = about.size_px.join(" / ");
  get("meshes").replaceChildren(...about.meshes.map((name) => Object.assign(made("option"), { value: name })));
  const toolNow = () => document.querySelector("[name=tool]:checked").value;
  drawing = new Drawing(get("over"), about.size_px, { tool: toolNow, onBox: setBox, onPoint: addPoint });
  showCamera();
  get("camera").addEventListener("change", () => (showCamera(), touched()));
  form.addEventListener("change", readForm);
  form.addEventListener("submit", (event) => event.preventDefault());
  get("scrub").addEventListener("input", () => go(Number(get("scrub").value)));
  get("number").addEventListener("change", () => go(Number(get("number").value)));
  for (const [name, act] of Object.entries(ACTS)) root.querySelector(`[data-do=${name}]`).addEventListener("click", act);
  addEventListener("keydown", onKey);
  addEventListener("beforeunload", (event) => changed && event.preventDefault());
  const first = things[0]?.prompts?.[0]?.frame_index ?? 0;
  await go(first);
}

begin().catch((error) => say(`The video cannot be shown. ${error.message}`));
