// The mask of the open picture. What is painted is learned; the rest is left out. After paint/paint.js.
let sending = false;
const painter = makePainter({ changed: () => told(), busy: () => sending });
painter.layer.classList.add("ds-layer");
const startFrom = make("select", { "aria-label": "Start from", onchange: startMask });
const saveMaskButton = button("Save mask", saveMask, { class: "ds-primary", title: "Ctrl+Enter" });
const dropMaskButton = button("Remove mask", () => { painter.saved(); trigger("unmask", { name: onStage.name, asked }); });
const maskTold = make("p", { class: "quiet ds-told", role: "status" });
const maskTool = {
  label: "Mask",
  bar: [...painter.bar, startFrom, saveMaskButton, dropMaskButton, maskTold],
  layer: painter.layer,
  enter: enterMask,
  leave: () => !painter.isDirty() || confirm("The mask is not saved. Leave it?"),
  key: maskKey,
  done: () => painter.saved(),
  refused: (problem) => { sending = false; told(problem); },
};

function enterMask() {
  painter.saved();
  sending = false;
  painter.begin(...facts.size);
  offerOrigins();
  dropMaskButton.hidden = !facts.mask;
  if (facts.mask) loadMask("mask");
}

function offerOrigins() {
  const names = { alpha: "the picture's transparency", onetrainer: "OneTrainer's mask", mask: "the saved mask" };
  startFrom.replaceChildren(make("option", { value: "" }, "Start from …"), ...facts.origins.map((origin) => make("option", { value: origin }, names[origin])));
  startFrom.hidden = facts.origins.length === 0;
}

function told(news = "") {
  maskTold.textContent = news || "What is painted is learned; the rest is left out.";
  saveMaskButton.disabled = !painter.isDirty() || sending;
}

async function loadMask(origin) {
  const answer = await server.mask_pixels({ folder: view.folder, name: onStage.name, origin }).catch(() => ({ problem: "The mask did not come." }));
  if (onStage?.tool !== maskTool) return;
  if (answer.problem) told(answer.problem);
  else painter.load(answer.url, origin !== "mask");
}

function startMask() {
  if (startFrom.value) loadMask(startFrom.value);
  startFrom.value = "";
}

function maskKey(event) {
  if ((event.ctrlKey || event.metaKey) && event.key === "Enter") saveMask();
  else return !event.target.matches("select") && painter.key(event);
  return true;
}

function saveMask() {
  if (!painter.isDirty() || sending) return;
  sending = true;
  trigger("mask", { name: onStage.name, png: painter.png(), asked });
  told("Saving …");
}

addEventListener("beforeunload", (event) => painter.isDirty() && onStage?.tool === maskTool && event.preventDefault());

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
