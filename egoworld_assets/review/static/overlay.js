// Draws the layers of a frame over its picture. All points are in pixels of the video; the centre of the first pixel is (0, 0).

const OF_ROLE = { hand_left: "#409cff", hand_right: "#ff8c28", object: "#5adc64", hand_other: "#c878dc" };
const UNSURE = "#aaaaaa";
const ROBOT = "#f0dc5a";
const AXES = ["#ff3c3c", "#3ce63c", "#5078ff"];

export const colorOf = (role) => OF_ROLE[role] ?? OF_ROLE.object;

export function drawOver(canvas, size, frame, bones, isOn, hands) {
  const context = fitted(canvas);
  if (!frame) return;
  const scale = canvas.width / size[0];
  const pen = Math.max(1, canvas.width / 640);
  // the middle of pixel (0, 0) lies half a pixel from the corner
  context.setTransform(scale, 0, 0, scale, scale / 2, scale / 2);
  const line = pen / scale;
  context.font = `${12 * line}px system-ui, sans-serif`;
  if (isOn("masks")) for (const mask of frame.masks) drawMask(context, mask, line);
  if (isOn("objects")) for (const thing of frame.objects) drawThing(context, thing, line);
  if (isOn("robots over")) for (const robot of frame.robots) strokes(context, robot.bones_px, ROBOT, line);
  if (isOn("hands")) for (const hand of frame.hands) if (isShown(hand, hands)) drawHand(context, hand, bones, line);
  if (isOn("boxes")) for (const box of frame.boxes) drawBox(context, box, line);
  context.setTransform(1, 0, 0, 1, 0, 0);
}

const isShown = (hand, hands) => hands === "both" || (hand.stage === "fusion") === (hands === "fused");

// A canvas as large as it is shown, cleared; its context.
export function fitted(canvas) {
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
  if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  return context;
}

export function trace(context, points, closed = false) {
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  if (closed) context.closePath();
}

export function strokes(context, lines, color, width, dash = []) {
  context.setLineDash(dash);
  for (const [ink, thick] of [["rgb(0 0 0 / 70%)", 2.4 * width], [color, width]]) {
    context.beginPath();
    for (const line of lines) trace(context, line);
    context.strokeStyle = ink;
    context.lineWidth = thick;
    context.stroke();
  }
  context.setLineDash([]);
}

function drawMask(context, mask, line) {
  context.beginPath();
  for (const outline of mask.outlines_px) trace(context, outline, true);
  context.globalAlpha = 0.3;
  context.fillStyle = context.strokeStyle = colorOf(mask.role);
  context.fill("evenodd");
  context.globalAlpha = 1;
  context.lineWidth = 1.2 * line;
  context.setLineDash(mask.observed ? [] : [4 * line, 3 * line]);
  context.stroke();
  context.setLineDash([]);
  label(context, mask.name, mask.box_px, colorOf(mask.role), line);
}

function drawBox(context, box, line) {
  const [x, y, width, height] = box.box_px;
  context.strokeStyle = colorOf(box.role);
  context.lineWidth = 1.5 * line;
  context.strokeRect(x, y, width, height);
  label(context, [box.name, box.score?.toFixed(2), box.phase].filter(Boolean).join(" "), box.box_px, colorOf(box.role), line);
}

function drawHand(context, hand, bones, line) {
  const fused = hand.stage === "fusion";
  const color = hand.solved && hand.observed ? colorOf(`hand_${hand.hand}`) : UNSURE;
  const lines = bones.map(([a, b]) => [hand.joints_px[a], hand.joints_px[b]]).filter(([a, b]) => a && b);
  // as found: dashed; after fusion: whole, with its joints
  strokes(context, lines, fused ? "#ffffff" : color, fused ? 1.5 * line : line, fused ? [] : [4 * line, 3 * line]);
  if (!fused) return;
  context.fillStyle = color;
  for (const joint of hand.joints_px.filter(Boolean)) {
    context.beginPath();
    context.arc(...joint, 2.2 * line, 0, 7);
    context.fill();
  }
}

function drawThing(context, thing, line) {
  const dash = thing.stands ? [] : [5 * line, 3 * line];
  strokes(context, thing.edges_px, thing.stands ? OF_ROLE.object : UNSURE, line, dash);
  thing.axes_px.forEach((axis, i) => {
    if (!axis.length) return;
    strokes(context, [axis], thing.stands ? AXES[i] : UNSURE, 2 * line, dash);
    context.fillStyle = AXES[i];
    context.fillText("xyz"[i], ...axis.at(-1));
  });
}

function label(context, text, [x, y], color, line) {
  context.lineWidth = 3 * line;
  context.strokeStyle = "rgb(0 0 0 / 75%)";
  context.fillStyle = color;
  const at = [Math.max(x, 2 * line), Math.max(y - 3 * line, 12 * line)];
  context.strokeText(text, ...at);
  context.fillText(text, ...at);
}

// A robot hand alone, seen along the camera's axis.
export function drawRobot(canvas, robot, on) {
  canvas.hidden = !on;
  if (!on) return;
  const context = fitted(canvas);
  if (!robot) return;
  const { width, height } = canvas;
  const ink = getComputedStyle(canvas).color;
  context.fillStyle = ink;
  context.font = `${height / 9}px system-ui, sans-serif`;
  context.fillText(`robot ${robot.hand}`, 4, height / 9);
  if (!robot.flat.length) return context.fillText(robot.reason ?? "not mapped", 4, height / 2);
  const size = (Math.min(width, 0.9 * height) * 0.92) / 0.75;
  context.setTransform(size, 0, 0, size, width / 2, 0.55 * height);
  context.beginPath();
  for (const link of robot.flat) trace(context, link);
  context.strokeStyle = ink;
  context.lineWidth = 3 / size;
  context.lineCap = "round";
  context.stroke();
  context.setTransform(1, 0, 0, 1, 0, 0);
}

// The camera's path from above, across the two axes along which it is widest; the camera as a dot.
export function drawPath(canvas, path, frame, on) {
  canvas.hidden = !on || path.length < 2;
  if (canvas.hidden) return;
  const context = fitted(canvas);
  const spread = (axis) => Math.max(...path.map((at) => at[axis])) - Math.min(...path.map((at) => at[axis]));
  const [across, up] = [1, 2, 3].sort((a, b) => spread(b) - spread(a)).slice(0, 2).sort();
  const size = Math.max(spread(across), spread(up), 1e-9);
  const [least, lowest] = [across, up].map((axis) => Math.min(...path.map((at) => at[axis])));
  const room = 0.8 * Math.min(canvas.width, canvas.height);
  const points = path.map((at) => [0.1 * canvas.width + ((at[across] - least) / size) * room, 0.15 * canvas.height + ((at[up] - lowest) / size) * room]);
  const ink = getComputedStyle(canvas).color;
  context.strokeStyle = context.fillStyle = ink;
  context.beginPath();
  trace(context, points);
  context.lineWidth = 2;
  context.stroke();
  context.font = `${canvas.height / 9}px system-ui, sans-serif`;
  context.fillText("camera", 4, canvas.height / 9);
  const here = points[path.findIndex((at) => at[0] === frame)];
  if (!here) return;
  context.beginPath();
  context.arc(...here, 5, 0, 7);
  context.fill();
}
