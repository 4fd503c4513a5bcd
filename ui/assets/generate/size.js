// Shapes of pictures in the number of pixels that the model was trained on. Runs inside gr.HTML, after dom.js.
const SHAPES = [["1:1", 1], ["4:3", 4 / 3], ["3:2", 3 / 2], ["16:9", 16 / 9], ["3:4", 3 / 4], ["2:3", 2 / 3], ["9:16", 9 / 16]];
const LEAST_PX = 64;
const field = (name) => document.querySelector(`#generate-${name} input`);
const chips = make("div", { class: "chips", role: "group", "aria-label": "Shape of the picture" });
const told = make("p", { class: "quiet" });
element.replaceChildren(chips, told);

function receive() {
  const side = props.value?.side;
  const shapes = (side ? SHAPES : []).map(([name, ratio]) => {
    const [width, height] = sizeOf(side, ratio);
    return button(name, () => set(width, height), { "data-size": `${width}x${height}`, title: `${width} × ${height}` });
  });
  chips.replaceChildren(...shapes, button("Swap", () => set(field("height").value, field("width").value), { title: "Width for height" }),
    button("The model's own", () => set("", ""), { title: "Leave the size to the model" }));
  told.textContent = side ? `Trained at ${side} × ${side}; other shapes keep its number of pixels. Empty: its own size.` : "Empty: the model's own size.";
  mark();
}

// As many pixels as the square has, in steps that the model's own training used: 64, or 8 for small models.
function sizeOf(side, ratio) {
  const step = side >= 512 ? 64 : 8;
  const near = (value) => Math.max(LEAST_PX, Math.round(value / step) * step);
  return [near(side * Math.sqrt(ratio)), near(side / Math.sqrt(ratio))];
}

function set(width, height) {
  for (const [name, value] of [["width", width], ["height", height]]) {
    field(name).value = value;
    field(name).dispatchEvent(new Event("input", { bubbles: true }));
  }
  mark();
}

function mark() {
  const now = `${field("width")?.value}x${field("height")?.value}`;
  chips.querySelectorAll("[data-size]").forEach((node) => node.setAttribute("aria-pressed", String(node.dataset.size === now)));
  document.dispatchEvent(new CustomEvent("atelier-size", { detail: { side: props.value?.side } }));
}

document.addEventListener("input", (event) => (event.target === field("width") || event.target === field("height")) && mark());
watch("value", receive);
receive();
