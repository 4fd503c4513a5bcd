// Values to choose from: files with boxes to tick, by run; names as buttons that join the text. Runs inside gr.HTML, after dom.js.
const offered = {}; // by kind; asked for when a kind is chosen

async function offersOf(kind) {
  offered[kind] ??= server.offered({ kind }).then((told) => JSON.parse(told.text));
  return offered[kind];
}

// The name of a chosen file, as it is offered; else the end of its path.
const nameOf = (groups, value) => groups.flatMap(({ group, items }) => items.map(([label, each]) => [each, group === "Merged LoRAs" || group === "Models" || group === "Without" ? label : `${group}, ${label}`]))
  .find(([each]) => each === value)?.[1] ?? value.split(/[\\/]/).pop();

// row.picked holds the values; changed() is called after each change.
function filePicker(row, groups, changed) {
  const chosen = make("p", { class: "chosen" });
  const boxes = new Map();
  const tell = () => {
    chosen.replaceChildren(...(row.picked.length ? row.picked.map(chip) : [make("span", { class: "quiet" }, "None chosen yet.")]));
    for (const [value, box] of boxes) box.checked = row.picked.includes(value);
    changed();
  };
  const set = (values, on) => {
    row.picked = on ? [...new Set([...row.picked, ...values])] : row.picked.filter((each) => !values.includes(each));
    tell();
  };
  const chip = (value) => make("span", { class: "chip", title: value }, nameOf(groups, value), button("×", () => set([value], false), { "aria-label": `Leave out ${nameOf(groups, value)}` }));
  const box = ([label, value]) => {
    const input = make("input", { type: "checkbox", onchange: () => set([value], input.checked) });
    boxes.set(value, input);
    return make("label", { class: "check" }, input, label);
  };
  const group = ({ group, items }) => make("div", { class: "group" },
    make("div", { class: "heading" }, make("b", {}, group), items.length > 1 ? button("All", () => set(items.map((item) => item[1]), items.some((item) => !row.picked.includes(item[1])))) : null),
    make("div", { class: "boxes" }, ...items.map(box)));
  const path = make("input", { type: "text", placeholder: "Another file: its path", "aria-label": "Another file" });
  const add = () => { if (path.value.trim()) set([path.value.trim()], true); path.value = ""; };
  path.addEventListener("keydown", (event) => { if (event.key === "Enter") add(); });
  const node = make("div", { class: "picker" }, chosen, make("div", { class: "offers" }, ...groups.map(group)), make("div", { class: "another" }, path, button("Add", add)));
  tell();
  return node;
}

// Buttons that put a name into the text, or take it out again.
function nameButtons(input, names) {
  const words = () => input.value.split(",").map((word) => word.trim()).filter(Boolean);
  const toggle = (name) => {
    const now = words();
    input.value = (now.includes(name) ? now.filter((word) => word !== name) : [...now, name]).join(", ");
    input.dispatchEvent(new Event("input"));
  };
  return make("div", { class: "names" }, ...names.map(([label]) => button(label, () => toggle(label))));
}
