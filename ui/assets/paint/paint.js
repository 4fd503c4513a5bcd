// A mask painted over a picture with a brush. Runs inside gr.HTML, after dom.js.
// The canvas holds one colour, whose transparency is the mask: 0 does not count, 255 counts in full.
const PAINT = "#e0308c";
const KEPT_STROKES = 40;
const MAX_KEPT_BYTES = 128 * 2 ** 20;

// The layer covers the picture; changed() is told of each change, and while busy() nothing is painted.
function makePainter({ changed, busy = () => false }) {
  let strokes = []; // what the strokes covered, as { x, y, pixels }: undo puts it back
  let stroke = null; // { points, erases }: the stroke being drawn
  let isDirty = false;
  const canvas = make("canvas", { class: "pt-canvas" });
  const before = make("canvas"); // the mask before the stroke being drawn
  const pen = canvas.getContext("2d", { willReadFrequently: true });
  const penBefore = before.getContext("2d", { willReadFrequently: true });
  const brushShown = make("div", { class: "pt-brush", hidden: true });
  const layer = make("div", { class: "pt-layer", onpointerdown: down, onpointermove: move, onpointerup: up, onpointercancel: up, onpointerleave: () => (brushShown.hidden = true) }, canvas, brushShown);
  const size = make("input", { type: "range", min: 1, max: 100, value: 40, "aria-label": "Brush size", title: "Keys [ and ]", oninput: sizeBrush });
  const hardness = make("input", { type: "range", min: 0, max: 100, value: 80, "aria-label": "Hardness" });
  const paints = button("Paint", () => setErasing(false), { title: "Key B" });
  const erases = button("Erase", () => setErasing(true), { title: "Key E" });
  const takeBack = button("Undo stroke", undo, { title: "Ctrl+Z" });
  const bar = [make("span", { class: "pt-group" }, paints, erases), make("label", {}, "Size ", size), make("label", {}, "Hardness ", hardness),
    make("span", { class: "pt-group" }, button("Fill", () => whole("source-over")), button("Invert", () => whole("source-out")), button("Clear", () => whole("destination-out")), takeBack)];

  function begin(width, height) {
    for (const each of [canvas, before]) [each.width, each.height] = [width, height];
    strokes = [];
    brushShown.hidden = true;
    setErasing(false);
    tell();
  }

  function tell() {
    takeBack.disabled = strokes.length === 0;
    changed();
  }

  function setErasing(on) {
    paints.setAttribute("aria-pressed", !on);
    erases.setAttribute("aria-pressed", on);
  }

  // The brush's width in pixels of the canvas; the slider is finer for small brushes.
  const brushPx = () => Math.max(1, (Number(size.value) / 100) ** 2 * Math.max(canvas.width, canvas.height));

  async function load(url, isChange) {
    const image = new Image();
    image.src = url;
    await image.decode();
    pen.globalCompositeOperation = "copy";
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.globalCompositeOperation = "source-in"; // the colour of the paint, whatever the file's
    pen.fillStyle = PAINT;
    pen.fillRect(0, 0, canvas.width, canvas.height);
    remember([0, 0, canvas.width, canvas.height], isChange);
  }

  // Fill, clear (taking the whole away) and invert (the whole outside of what was there).
  function whole(operation) {
    if (busy()) return;
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
    isDirty ||= isChange;
    tell();
  }

  function undo() {
    const last = strokes.pop();
    if (!last) return;
    for (const each of [pen, penBefore]) each.putImageData(last.pixels, last.x, last.y);
    isDirty = true;
    tell();
  }

  /* The brush */
  function shareOf(event) {
    const place = layer.getBoundingClientRect();
    return [(event.clientX - place.left) / place.width, (event.clientY - place.top) / place.height];
  }

  const onCanvas = (event) => shareOf(event).map((share, axis) => share * (axis ? canvas.height : canvas.width));

  function down(event) {
    if (event.button !== 0 || busy()) return;
    stroke = { points: [onCanvas(event)], erases: erases.getAttribute("aria-pressed") === "true" || event.buttons === 32 }; // 32: a pen's eraser
    layer.setPointerCapture(event.pointerId);
    drawStroke();
    layer.closest("[tabindex='-1']")?.focus({ preventScroll: true });
    event.preventDefault();
  }

  function move(event) {
    showBrush(event);
    if (!stroke) return;
    const several = event.getCoalescedEvents?.() ?? [];
    stroke.points.push(...(several.length ? several : [event]).map(onCanvas));
    drawStroke();
  }

  function up() {
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
    const [x, y] = shareOf(event);
    brushShown.hidden = event.pointerType === "touch";
    Object.assign(brushShown.style, { left: `${x * 100}%`, top: `${y * 100}%` });
    sizeBrush();
  }

  function sizeBrush() {
    const across = (brushPx() * layer.clientWidth) / canvas.width;
    brushShown.style.width = brushShown.style.height = `${across}px`;
  }

  // Whether it took the key.
  function key(event) {
    const control = event.ctrlKey || event.metaKey;
    if (control && event.key === "z") undo();
    else if (control) return false;
    else if (event.key === "b" || event.key === "e") setErasing(event.key === "e");
    else if (event.key === "[" || event.key === "]") { size.value = Number(size.value) + (event.key === "]" ? 3 : -3); sizeBrush(); }
    else return false;
    return true;
  }

  return { layer, bar, begin, load, key, isDirty: () => isDirty, saved: () => (isDirty = false), png: () => canvas.toDataURL("image/png") };
}
