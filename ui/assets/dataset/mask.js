// The mask of the open picture, painted with a brush. What is painted is learned; the rest is left out.
// The canvas holds one colour, whose transparency is the mask: 0 does not count, 255 counts in full.
const PAINT = "#e0308c";
const KEPT_STROKES = 40;
const MAX_KEPT_BYTES = 128 * 2 ** 20;
let strokes = []; // what the strokes covered, as { x, y, pixels }: undo puts it back
let stroke = null; // { points, erases }: the stroke being drawn
let changed = false;
let sending = false;

const canvas = make("canvas", { class: "ds-mask-canvas" });
const before = make("canvas"); // the mask before the stroke being drawn
const brushShown = make("div", { class: "ds-brush" });
const maskLayer = make("div", { class: "ds-layer ds-mask-layer", onpointerdown: brushDown, onpointermove: brushMove, onpointerup: brushUp, onpointercancel: brushUp,
  onpointerleave: () => (brushShown.hidden = true) }, canvas, brushShown);
const brushSize = make("input", { type: "range", min: 1, max: 100, value: 40, "aria-label": "Brush size", title: "Keys [ and ]", oninput: sizeBrush });
const hardness = make("input", { type: "range", min: 0, max: 100, value: 80, "aria-label": "Hardness" });
const paints = button("Paint", () => setErasing(false), { title: "Key B" });
const erases = button("Erase", () => setErasing(true), { title: "Key E" });
const takeBack = button("Undo stroke", undoStroke, { title: "Ctrl+Z" });
const startFrom = make("select", { "aria-label": "Start from", onchange: startMask });
const saveMaskButton = button("Save mask", saveMask, { class: "ds-primary", title: "Ctrl+Enter" });
const dropMaskButton = button("Remove mask", () => { changed = false; trigger("unmask", { name: onStage.name, asked }); });
const maskTold = make("p", { class: "quiet ds-told", role: "status" });
const maskTool = {
  label: "Mask",
  bar: [make("span", { class: "ds-group" }, paints, erases), make("label", {}, "Size ", brushSize), make("label", {}, "Hardness ", hardness),
    make("span", { class: "ds-group" }, button("Fill", () => whole("source-over")), button("Invert", () => whole("source-out")), button("Clear", () => whole("destination-out")), takeBack),
    startFrom, saveMaskButton, dropMaskButton, maskTold],
  layer: maskLayer,
  enter: enterMask,
  leave: () => !changed || confirm("The mask is not saved. Leave it?"),
  key: maskKey,
  done: () => (changed = false),
  refused: (problem) => { sending = false; told(problem); },
};
const pen = canvas.getContext("2d", { willReadFrequently: true });
const penBefore = before.getContext("2d", { willReadFrequently: true });

function enterMask() {
  for (const each of [canvas, before]) [each.width, each.height] = facts.size;
  strokes = [];
  changed = sending = false;
  brushShown.hidden = true;
  setErasing(false);
  offerOrigins();
  dropMaskButton.hidden = !facts.mask;
  told();
  if (facts.mask) loadMask("mask");
}

function offerOrigins() {
  const names = { alpha: "the picture's transparency", onetrainer: "OneTrainer's mask", mask: "the saved mask" };
  startFrom.replaceChildren(make("option", { value: "" }, "Start from …"), ...facts.origins.map((origin) => make("option", { value: origin }, names[origin])));
  startFrom.hidden = facts.origins.length === 0;
}

function told(news = "") {
  maskTold.textContent = news || "What is painted is learned; the rest is left out.";
  takeBack.disabled = strokes.length === 0;
  saveMaskButton.disabled = !changed || sending;
}

function setErasing(on) {
  paints.setAttribute("aria-pressed", !on);
  erases.setAttribute("aria-pressed", on);
}

// The brush's width in pixels of the canvas; the slider is finer for small brushes.
const brushPx = () => Math.max(1, (Number(brushSize.value) / 100) ** 2 * Math.max(canvas.width, canvas.height));

async function loadMask(origin) {
  const answer = await server.mask_pixels({ folder: view.folder, name: onStage.name, origin }).catch(() => ({ problem: "The mask did not come." }));
  if (onStage?.tool !== maskTool) return;
  if (answer.problem) return told(answer.problem);
  const image = new Image();
  image.src = answer.url;
  await image.decode();
  pen.globalCompositeOperation = "copy";
  pen.drawImage(image, 0, 0, canvas.width, canvas.height);
  pen.globalCompositeOperation = "source-in"; // the colour of the paint, whatever the file's
  pen.fillStyle = PAINT;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  remember([0, 0, canvas.width, canvas.height], origin !== "mask");
}

function startMask() {
  if (startFrom.value) loadMask(startFrom.value);
  startFrom.value = "";
}

// Fill, clear (taking the whole away) and invert (the whole outside of what was there).
function whole(operation) {
  pen.globalCompositeOperation = operation;
  pen.fillStyle = PAINT;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  remember([0, 0, canvas.width, canvas.height]);
}

// Keep what the part [x, y, width, height] held before, for undo.
function remember([x, y, width, height], isChange = true) {
  if (isChange) strokes.push({ x, y, pixels: penBefore.getImageData(x, y, width, height) });
  while (strokes.length > KEPT_STROKES || (strokes.length > 1 && strokes.reduce((sum, { pixels }) => sum + pixels.data.length, 0) > MAX_KEPT_BYTES)) strokes.shift();
  penBefore.globalCompositeOperation = "copy";
  penBefore.drawImage(canvas, 0, 0);
  changed ||= isChange;
  told();
}

function undoStroke() {
  const last = strokes.pop();
  if (!last) return;
  for (const each of [pen, penBefore]) each.putImageData(last.pixels, last.x, last.y);
  changed = true;
  told();
}

/* The brush */
const onCanvas = (event) => pointOf(event).map((at) => (at * canvas.width) / onStage.width);

function brushDown(event) {
  if (event.button !== 0 || sending) return;
  stroke = { points: [onCanvas(event)], erases: erases.getAttribute("aria-pressed") === "true" || event.buttons === 32 }; // 32: a pen's eraser
  maskLayer.setPointerCapture(event.pointerId);
  drawStroke();
  stage.focus();
  event.preventDefault();
}

function brushMove(event) {
  showBrush(event);
  if (!stroke) return;
  const several = event.getCoalescedEvents?.() ?? [];
  stroke.points.push(...(several.length ? several : [event]).map(onCanvas));
  drawStroke();
}

function brushUp() {
  if (!stroke) return;
  const part = reach();
  stroke = null;
  if (part[2] > 0 && part[3] > 0) remember(part);
}

// The part of the canvas that the stroke may cover: [x, y, width, height].
function reach() {
  const far = brushPx() + 2;
  const [xs, ys] = [0, 1].map((axis) => stroke.points.map((point) => point[axis]));
  const left = Math.max(0, Math.floor(Math.min(...xs) - far));
  const top = Math.max(0, Math.floor(Math.min(...ys) - far));
  return [left, top, Math.min(canvas.width, Math.ceil(Math.max(...xs) + far)) - left, Math.min(canvas.height, Math.ceil(Math.max(...ys) + far)) - top];
}

// The whole stroke anew on what was there before it, so that a soft edge is not painted twice where it crosses itself.
function drawStroke() {
  const part = reach();
  if (part[2] <= 0 || part[3] <= 0) return;
  pen.save();
  pen.globalCompositeOperation = "copy";
  pen.beginPath();
  pen.rect(...part);
  pen.clip();
  pen.drawImage(before, 0, 0);
  pen.globalCompositeOperation = stroke.erases ? "destination-out" : "source-over";
  const soft = (1 - Number(hardness.value) / 100) * brushPx();
  Object.assign(pen, { lineWidth: brushPx(), lineCap: "round", lineJoin: "round", strokeStyle: PAINT });
  if (soft > 0.5) {
    const away = canvas.width * 4; // the line itself is drawn outside; its blurred shadow is what is seen
    Object.assign(pen, { shadowColor: PAINT, shadowBlur: soft / 2, shadowOffsetX: away, lineWidth: Math.max(1, brushPx() - soft / 2) });
    pen.translate(-away, 0);
  }
  pen.beginPath();
  stroke.points.forEach(([x, y], index) => (index ? pen.lineTo(x, y) : pen.moveTo(x, y)));
  if (stroke.points.length === 1) pen.lineTo(stroke.points[0][0] + 0.01, stroke.points[0][1]);
  pen.stroke();
  pen.restore();
}

function showBrush(event) {
  const [x, y] = pointOf(event);
  brushShown.hidden = event.pointerType === "touch";
  Object.assign(brushShown.style, { left: `${x * zoom}px`, top: `${y * zoom}px` });
  sizeBrush();
}

function sizeBrush() {
  const across = (brushPx() * onStage.width * zoom) / canvas.width;
  brushShown.style.width = brushShown.style.height = `${across}px`;
}

function maskKey(event) {
  const control = event.ctrlKey || event.metaKey;
  if (control && event.key === "z") undoStroke();
  else if (control && event.key === "Enter") saveMask();
  else if (control || event.target.matches("select")) return false;
  else if (event.key === "b" || event.key === "e") setErasing(event.key === "e");
  else if (event.key === "[" || event.key === "]") { brushSize.value = Number(brushSize.value) + (event.key === "]" ? 3 : -3); sizeBrush(); }
  else return false;
  return true;
}

function saveMask() {
  if (!changed || sending) return;
  sending = true;
  trigger("mask", { name: onStage.name, png: canvas.toDataURL("image/png"), asked });
  told("Saving …");
}

addEventListener("beforeunload", (event) => changed && onStage?.tool === maskTool && event.preventDefault());

/* Over the picture beside the grid */
async function showMaskOver() {
  maskShown.hidden = true;
  const { name, mask } = facts;
  if (!mask) return;
  const answer = await server.mask_pixels({ folder: view.folder, name, origin: "mask" }).catch(() => null);
  if (!answer?.url || facts?.name !== name || facts.mask !== mask) return;
  maskShown.style.maskImage = `url(${answer.url})`;
  maskShown.hidden = false;
}
