// A crop box drawn by hand: kept for writing the pictures anew, or applied to the picture at once.
let cropBox = null; // [left, top, right, bottom] in whole pixels of the picture
let dragged = null; // { kind, from, box }: what the pointer does

const cropFrame = make("div", { class: "ds-crop-frame" }, ...["nw", "ne", "sw", "se"].map((corner) => make("span", { class: `ds-corner ds-${corner}`, "data-corner": corner })));
const cropShade = make("div", { class: "ds-shade" });
const cropLayer = make("div", { class: "ds-layer ds-crop-layer", onpointerdown: cropDown, onpointermove: cropMove, onpointerup: cropUp, onpointercancel: cropUp }, cropShade, cropFrame);
const aspectChoice = make("select", { "aria-label": "Shape", onchange: () => cropBox && setCrop(shaped(cropBox)) });
const cropTold = make("span", { class: "quiet", role: "status" });
const keepCropButton = button("Keep this box", () => sendCrop("crop"), { title: "The picture stays as it is. Writing the pictures anew with the crop by hand uses the box." });
const cutButton = button("Crop the picture now", () => sendCrop("cut"), { class: "ds-primary", title: "Undo brings the whole picture back." });
const dropCropButton = button("Remove the box", () => sendCrop("crop", null));
const cropTool = {
  label: "Crop",
  bar: [make("label", {}, "Shape ", aspectChoice), cropTold, keepCropButton, dropCropButton, cutButton],
  layer: cropLayer,
  enter: enterCrop,
  leave: () => true,
  key: cropKey,
  done: () => {},
  refused: (problem) => { onStage.sending = false; showCrop(problem); },
};

function enterCrop() {
  const { width, height } = onStage;
  const shapes = facts?.placements ?? [];
  aspectChoice.replaceChildren(make("option", { value: "" }, "free"), make("option", { value: width / height }, "as the picture"), make("option", { value: 1 }, "square"),
    ...shapes.map((placed) => make("option", { value: placed.width / placed.height }, `${placed.width} × ${placed.height} (bucket at ${placed.resolution})`)));
  const kept = facts?.crop;
  dropCropButton.hidden = !kept;
  setCrop(kept ? kept.map((share, side) => Math.round(share * (side % 2 ? height : width))) : null);
}

function setCrop(box) {
  cropBox = box && inside(box);
  showCrop();
}

// The same size moved back into the picture; what is larger than it is cut.
function inside([left, top, right, bottom]) {
  const { width, height } = onStage;
  const wide = Math.min(Math.max(1, Math.round(right - left)), width);
  const high = Math.min(Math.max(1, Math.round(bottom - top)), height);
  const x = Math.min(Math.max(0, Math.round(left)), width - wide);
  const y = Math.min(Math.max(0, Math.round(top)), height - high);
  return [x, y, x + wide, y + high];
}

function showCrop(news = "") {
  cropFrame.hidden = cropShade.hidden = !cropBox;
  keepCropButton.disabled = cutButton.disabled = !cropBox || onStage.sending;
  dropCropButton.disabled = onStage.sending;
  cropTold.textContent = news ? news : cropBox ? `${cropBox[2] - cropBox[0]} × ${cropBox[3] - cropBox[1]} px at ${cropBox[0]}, ${cropBox[1]}` : "Draw a box on the picture.";
  if (cropBox) placeBox(cropFrame, sharesOf(cropBox), cropShade);
}

const sharesOf = (box) => box.map((side, index) => side / (index % 2 ? onStage.height : onStage.width));

// The box between a fixed corner and a point, in the chosen shape and within the picture.
function spanned([fromX, fromY], [toX, toY]) {
  const { width, height } = onStage;
  const roomX = toX < fromX ? fromX : width - fromX;
  const roomY = toY < fromY ? fromY : height - fromY;
  let wide = Math.min(Math.abs(toX - fromX), roomX);
  let high = Math.min(Math.abs(toY - fromY), roomY);
  const aspect = Number(aspectChoice.value);
  if (aspect) {
    wide = Math.min(Math.max(wide, high * aspect), roomX, roomY * aspect);
    high = wide / aspect;
  }
  const x = toX < fromX ? fromX - wide : fromX;
  const y = toY < fromY ? fromY - high : fromY;
  return [x, y, x + wide, y + high];
}

// The largest box of the chosen shape within this one, around the same middle.
function shaped([left, top, right, bottom]) {
  const aspect = Number(aspectChoice.value);
  if (!aspect) return [left, top, right, bottom];
  const wide = Math.min(right - left, (bottom - top) * aspect);
  const [x, y] = [(left + right - wide) / 2, (top + bottom - wide / aspect) / 2];
  return [x, y, x + wide, y + wide / aspect];
}

function cropDown(event) {
  if (event.button !== 0) return;
  const from = pointOf(event);
  const corner = event.target.dataset.corner;
  if (corner) {
    const [left, top, right, bottom] = cropBox;
    dragged = { kind: "span", from: [corner.includes("w") ? right : left, corner.includes("n") ? bottom : top] };
  } else if (cropFrame.contains(event.target)) dragged = { kind: "move", from, box: cropBox };
  else dragged = { kind: "span", from: [Math.min(Math.max(0, from[0]), onStage.width), Math.min(Math.max(0, from[1]), onStage.height)] };
  cropLayer.setPointerCapture(event.pointerId);
  stage.focus();
  event.preventDefault();
}

function cropMove(event) {
  if (!dragged) return;
  const to = pointOf(event);
  if (dragged.kind === "move") return setCrop(shifted(dragged.box, to[0] - dragged.from[0], to[1] - dragged.from[1]));
  const box = spanned(dragged.from, to);
  if (box[2] - box[0] >= 1 && box[3] - box[1] >= 1) setCrop(box);
}

function cropUp() {
  dragged = null;
}

const shifted = ([left, top, right, bottom], x, y) => [left + x, top + y, right + x, bottom + y];

// Arrows move the box by a pixel, with Shift by ten; with Alt they move its right and lower side.
function cropKey(event) {
  const step = event.shiftKey ? 10 : 1;
  const way = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] }[event.key];
  if (!way || !cropBox || event.target.matches("select")) return false;
  const [left, top, right, bottom] = cropBox;
  setCrop(event.altKey ? spanned([left, top], [right + way[0], bottom + way[1]]) : shifted(cropBox, ...way));
  return true;
}

function sendCrop(what, box = sharesOf(cropBox)) {
  if (onStage.sending) return; // a second cut would be one of what the first left
  onStage.sending = true;
  showCrop("Saving …");
  trigger(what, { name: onStage.name, box, asked });
}
