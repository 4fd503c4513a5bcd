// The grid that is shown, filling as its pictures come, and the list of all grids. Runs inside gr.HTML, after dom.js and viewer.js.
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
let told = "", grids = [], sheet = null; // what the program sent last
let z = 0, laid = "", asking = false, unfolded = false, size = 0;
const cells = new Map(); // name to its place in the table

const labelsOf = (axis) => sheet.axes[axis]?.labels ?? [""];
const titleOf = (name) => ["x", "y", "z"].filter((axis) => sheet.axes[axis]).map((axis) => `${sheet.axes[axis].title}: ${labelsOf(axis)[name.split("-")["xyz".indexOf(axis)]]}`).join("  ·  ");
const show = cellViewer(next, titleOf, (name) => trigger("use", { grid: sheet.id, cell: name }));

// The next drawn cell in a direction: cells that are missing are passed over.
function next(name, right, down) {
  let [x, y, sheetNumber] = name.split("-").map(Number);
  for (;;) {
    x += right;
    y += down;
    if (x < 0 || y < 0 || x >= labelsOf("x").length || y >= labelsOf("y").length) return null;
    const found = `${x}-${y}-${sheetNumber}`;
    if (sheet.drawn.has(found)) return found;
  }
}

const head = make("div", { class: "head" }), box = make("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Grid" }), earlier = make("div");
element.replaceChildren(head, box, earlier);

function receive() {
  const text = props.value?.text;
  if (!text || text === told) return;
  told = text;
  const value = JSON.parse(text);
  grids = value.grids;
  if (value.shown?.id !== sheet?.id) { z = 0; asking = false; }
  sheet = value.shown && { ...value.shown, drawn: new Set(value.shown.drawn) };
  render();
}

function render() {
  head.replaceChildren(...(sheet ? header() : []));
  box.hidden = !sheet;
  if (sheet) fillTable();
  earlier.replaceChildren(...(grids.length > 1 ? [list()] : []));
}

function header() {
  const bar = make("div", { class: "bar", role: "progressbar", "aria-label": "Grid", "aria-valuemin": 0, "aria-valuemax": 100, "aria-valuenow": Math.round(sheet.share * 100) }, make("i"));
  bar.firstChild.style.width = `${sheet.share * 100}%`;
  const act = (text, name, more = {}) => button(text, () => trigger(name, { id: sheet.id }), more);
  const again = sheet.drawn.size < sheet.total && !sheet.busy;
  const address = `/atelier/grids/${encodeURIComponent(sheet.id)}`;
  const slider = make("input", { type: "range", min: 56, max: 360, value: size || fitting(), "aria-label": "Size of the pictures", oninput: () => { size = slider.valueAsNumber; box.style.setProperty("--cell", `${size}px`); } });
  return [
    make("h3", {}, sheet.title), make("p", { class: "words", role: "status" }, sheet.words), sheet.busy ? bar : null,
    make("div", { class: "actions" },
      sheet.busy ? act("Cancel the grid", "cancel") : null,
      again ? act(sheet.drawn.size + Object.keys(sheet.failed).length < sheet.total ? "Continue" : "Try the failed ones again", "go_on", { class: "main" }) : null,
      sheet.ready ? make("a", { href: `${address}/sheet.png`, download: true }, "Save the sheet") : null,
      sheet.ready ? make("a", { href: `${address}/grid.zip`, download: true, title: "The sheet, every picture, and all settings as JSON and CSV" }, "Export all (zip)") : null,
      sheet.busy ? null : button("Delete", () => { asking = true; render(); }),
      button("Full screen", () => (document.fullscreenElement ? document.exitFullscreen() : box.requestFullscreen())), make("label", { class: "size" }, "Size", slider)),
    asking ? make("div", { class: "question" }, "Move this grid with all its pictures to the bin?", button("Move to the bin", () => { asking = false; trigger("remove", { id: sheet.id }); }), button("Keep it", () => { asking = false; render(); })) : null,
    sheet.axes.z ? make("div", { class: "sheets", role: "group", "aria-label": sheet.axes.z.title }, make("span", {}, `${sheet.axes.z.title}:`),
      ...labelsOf("z").map((label, number) => button(label, () => { z = number; render(); }, { "aria-pressed": String(number === z) }))) : null,
  ].filter(Boolean);
}

// Pictures as large as all columns have room for, in reason, until somebody moves the slider.
const fitting = () => Math.max(96, Math.min(240, Math.floor((box.clientWidth - 130) / labelsOf("x").length) - 6));

// The table is made anew only for another grid or sheet: pictures that are there stay where they are.
function fillTable() {
  const key = `${sheet.id} ${z}`;
  if (laid !== key) {
    laid = key;
    cells.clear();
    const corner = make("th", { class: "corner" }, make("span", {}, sheet.axes.x.title), sheet.axes.y ? make("span", {}, sheet.axes.y.title) : null);
    const top = make("tr", {}, corner, ...labelsOf("x").map((label) => make("th", { scope: "col", title: label }, make("span", {}, label))));
    const body = labelsOf("y").map((label, y) => make("tr", {}, make("th", { scope: "row", title: label }, make("span", {}, label)), ...labelsOf("x").map((_, x) => {
      const place = make("td");
      cells.set(`${x}-${y}-${z}`, place);
      return place;
    })));
    box.replaceChildren(make("table", {}, make("thead", {}, top), make("tbody", {}, ...body)));
    box.style.setProperty("--cell", `${size || fitting()}px`);
  }
  for (const [name, place] of cells) fillCell(name, place);
}

function fillCell(name, place) {
  const state = sheet.drawn.has(name) ? "drawn" : sheet.failed[name] ? "failed" : "missing";
  if (place.dataset.state === state) return;
  place.dataset.state = state;
  if (state === "drawn") {
    const image = make("img", { src: cellAddress(sheet.id, name, "?thumbnail"), alt: "", loading: "lazy", decoding: "async" });
    place.replaceChildren(make("button", { type: "button", class: "cell", "aria-label": titleOf(name), onclick: () => show(sheet.id, name) }, image));
  } else place.replaceChildren(state === "failed" ? make("span", { class: "failed", title: sheet.failed[name] }, sheet.failed[name]) : make("span", { class: "missing" }));
}

function list() {
  const line = (grid) => make("li", {}, button(grid.title, () => trigger("choose", { id: grid.id }), { class: "name", "aria-current": String(grid.id === sheet?.id) }),
    make("small", {}, `${grid.words}${grid.busy ? ", drawing" : ""}, ${moment.format(grid.created * 1000)}`));
  const fold = make("details", { open: unfolded, ontoggle: () => { unfolded = fold.open; } }, make("summary", {}, `All grids (${grids.length})`), make("ul", {}, ...grids.map(line)));
  return fold;
}

new ResizeObserver(() => sheet && box.style.setProperty("--cell", `${size || fitting()}px`)).observe(box); // it may be unfolded later
watch("value", receive);
receive();
