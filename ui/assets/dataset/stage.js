// The open picture over the whole window: for looking at it closely, and the ground on which crop and mask work.
const ZOOMS = [0.125, 0.25, 0.5, 1, 2, 4, 8]; // pixels of the screen per pixel of the picture
let zoom = 1;
let onStage = null; // { name, width, height, tool, sending }: what is shown, and whether what was done is on its way
let gripped = false; // the picture is being moved by the mouse

const closeUp = make("img", { alt: "", draggable: "false" });
const sheet = make("div", { class: "ds-sheet" }, closeUp);
const ground = make("div", { class: "ds-ground", onwheel: wheel, onpointerdown: grip, onpointermove: pull, onpointerup: () => (gripped = false), onpointercancel: () => (gripped = false) }, sheet);
const toolBar = make("div", { class: "ds-tools" });
const zoomTold = make("span", { class: "ds-zoom quiet", role: "status" });
const hand = button("Move", () => setHand(!stage.classList.contains("ds-hand")), { title: "Move the picture instead of working on it (hold the space bar)" });
const stage = make("div", { class: "ds-stage", role: "dialog", "aria-modal": "true", tabindex: -1, hidden: true, onkeydown: stageKey, onkeyup: stageKeyUp },
  make("div", { class: "ds-stage-bar" }, toolBar,
    make("div", { class: "ds-zooms" }, hand, button("−", () => zoomBy(-1), { "aria-label": "Smaller" }), zoomTold, button("+", () => zoomBy(1), { "aria-label": "Larger" }),
      button("Fit", () => setZoom(fittingZoom())), button("100 %", () => setZoom(1)), button("Close", leaveStage, { class: "ds-leave" }))), ground);

// A tool has a label, a bar of controls, a layer over the picture (null for none), enter() and leave(), which answers
// whether the stage may close, key(event), which answers whether it took the key, done() and refused(problem).
const lookTool = { label: "Picture", bar: [], layer: null, enter: () => {}, leave: () => true, key: () => false };

function enterStage(tool) {
  const item = view.cards.find(({ name }) => name === open?.name);
  if (!item?.width) return;
  save();
  onStage = { name: item.name, width: item.width, height: item.height, tool };
  stage.setAttribute("aria-label", `${tool.label}: ${item.name}`);
  toolBar.replaceChildren(...tool.bar);
  sheet.replaceChildren(closeUp, ...(tool.layer ? [tool.layer] : []));
  showCloseUp(item);
  stage.hidden = false;
  work.inert = true;
  hand.hidden = !tool.layer;
  setHand(!tool.layer);
  tool.enter();
  setZoom(fittingZoom());
  stage.focus();
}

function showCloseUp(item) {
  closeUp.src = item.picture; // at once; the full one when it has come
  const full = new Image();
  full.onload = () => onStage?.name === item.name && (closeUp.src = full.src);
  full.src = `/atelier/full?${new URLSearchParams({ folder: view.folder, name: item.name, of: item.picture })}`;
}

function leaveStage() {
  if (!onStage || !onStage.tool.leave()) return;
  onStage = null;
  stage.hidden = true;
  work.inert = false;
  (SIDE_BY_SIDE.matches ? tools : editor).querySelector("button")?.focus();
}

function fittingZoom() {
  return Math.min(4, (ground.clientWidth - 16) / onStage.width, (ground.clientHeight - 16) / onStage.height);
}

// Zoom in or out around a point of the window; without one, around the middle.
function setZoom(value, x = ground.clientWidth / 2, y = ground.clientHeight / 2) {
  const before = zoom;
  const at = [(ground.scrollLeft + x - sheet.offsetLeft) / before, (ground.scrollTop + y - sheet.offsetTop) / before];
  zoom = Math.min(ZOOMS.at(-1), Math.max(0.02, value));
  sheet.style.width = `${onStage.width * zoom}px`;
  sheet.style.height = `${onStage.height * zoom}px`;
  closeUp.style.imageRendering = zoom >= 2 ? "pixelated" : "auto";
  ground.scrollTo(at[0] * zoom + sheet.offsetLeft - x, at[1] * zoom + sheet.offsetTop - y);
  zoomTold.textContent = `${Math.round(zoom * 100)} %`;
}

function zoomBy(by, ...at) {
  const next = by > 0 ? ZOOMS.find((each) => each > zoom * 1.01) : ZOOMS.findLast((each) => each < zoom / 1.01);
  setZoom(next ?? zoom, ...at);
}

function wheel(event) {
  if (!event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  const place = ground.getBoundingClientRect();
  setZoom(zoom * Math.exp(-event.deltaY / 400), event.clientX - place.left, event.clientY - place.top);
}

function setHand(on) {
  stage.classList.toggle("ds-hand", on);
  hand.setAttribute("aria-pressed", on);
}

function grip(event) {
  gripped = event.pointerType === "mouse" && (stage.classList.contains("ds-hand") || event.button === 1);
  if (gripped) ground.setPointerCapture(event.pointerId);
}

function pull(event) {
  if (gripped) ground.scrollBy(-event.movementX, -event.movementY);
}

function stageKey(event) {
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (event.key === "Escape") leaveStage();
  else if (onStage.tool.key(event)) { /* the tool's own */ }
  else if (event.target.matches("input, select")) return;
  else if (plain && (event.key === "+" || event.key === "-")) zoomBy(event.key === "+" ? 1 : -1);
  else if (plain && event.key === "1") setZoom(1);
  else if (plain && event.key === "0") setZoom(fittingZoom());
  else if (event.key === " " && event.target === stage) setHand(true);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function stageKeyUp(event) {
  if (event.key === " " && event.target === stage && onStage.tool.layer) setHand(false);
}

// Where a pointer is, in pixels of the picture.
function pointOf(event) {
  const place = sheet.getBoundingClientRect();
  return [(event.clientX - place.left) / zoom, (event.clientY - place.top) / zoom];
}

const tools = make("div", { class: "ds-open-tools" }, button("Look closely", () => enterStage(lookTool)),
  button("Crop", () => enterStage(cropTool)), button("Mask", () => enterStage(maskTool)));
