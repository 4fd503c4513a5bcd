// The wall of previews: prompts by steps, or all prompts at one step beside the start. Runs after viewer.js.
// Only the columns in sight are on the page, so that five hundred pictures cost no more than fifty.
const SPARE_COLUMNS = 3;
let told = { run: null, prompts: [], steps: [], cells: [] };
let place = 0; // of the step that is shown alone, among told.steps
let follow = true; // whether the newest step is kept in sight

const cellOf = (row, column) => {
  const cell = told.cells[row] && told.cells[row][column];
  return cell ? { run: told.run, name: cell[0], stamp: cell[1], prompt: told.prompts[row], step: told.steps[column], row, column } : null;
};
const open = makeViewer(
  ({ row, column }, right, down) => {
    for (let next = column + right; next >= 0 && next < told.steps.length; next += right) {
      const found = cellOf(row + down, next);
      if (found || !right) return found;
    }
    return null;
  },
  ({ row }) => (told.steps[0] === 0 ? cellOf(row, 0) : null));

const layout = make("select", { "aria-label": "Arrange previews", onchange: draw }, make("option", { value: "wall" }, "All steps"), make("option", { value: "one" }, "One step"));
const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Step", oninput: () => { place = Number(slider.value); follow = place === told.steps.length - 1; drawOne(); } });
const stepShown = make("output");
const beside = make("input", { type: "checkbox", checked: true, onchange: draw });
const besideLabel = make("label", {}, beside, "Beside the start");
const count = make("span", { class: "sw-count" });
const stepper = make("span", { class: "sw-stepper" }, button("‹", () => stepBy(-1), { "aria-label": "Earlier step" }), slider, button("›", () => stepBy(1), { "aria-label": "Later step" }), stepShown, besideLabel);
const bar = make("div", { class: "sw-bar" }, layout, stepper, count);
const table = make("div", { role: "table", "aria-label": "Previews", class: "sw-table" });
const scroll = make("div", { class: "sw-scroll", tabindex: 0, role: "region", "aria-label": "Previews by prompt and step" }, table);
const ones = make("div", { class: "sw-ones" });
const nothing = make("p", { class: "quiet" });
element.replaceChildren(make("div", { class: "sw" }, nothing, bar, scroll, ones));

function stepBy(by) {
  slider.value = place + by;
  slider.dispatchEvent(new Event("input"));
}

function draw() {
  const any = told.steps.length > 0, wall = layout.value === "wall";
  nothing.hidden = any;
  bar.hidden = !any;
  scroll.hidden = !any || !wall;
  ones.hidden = stepper.hidden = !any || wall;
  besideLabel.hidden = told.steps[0] !== 0;
  count.textContent = `${told.cells.flat().filter(Boolean).length} pictures`;
  if (!any) return;
  if (follow) place = told.steps.length - 1;
  slider.max = told.steps.length - 1;
  if (wall) drawWall(true);
  else drawOne();
}

let drawn = "";
function drawWall(anew = false) {
  const width = parseFloat(getComputedStyle(scroll).getPropertyValue("--cell")) || 136;
  const labels = parseFloat(getComputedStyle(scroll).getPropertyValue("--label")) || 160;
  if (anew && follow) scroll.scrollLeft = told.steps.length * width;
  const first = Math.max(0, Math.floor(scroll.scrollLeft / width) - SPARE_COLUMNS);
  const last = Math.min(told.steps.length, Math.ceil((scroll.scrollLeft + (scroll.clientWidth || 1000) - labels) / width) + SPARE_COLUMNS);
  if (!anew && drawn === `${first} ${last}`) return;
  drawn = `${first} ${last}`;
  const columns = Array.from({ length: Math.max(0, last - first) }, (_, index) => first + index);
  const spread = (cells) => [make("i", { style: `flex:0 0 ${first * width}px` }), ...cells, make("i", { style: `flex:0 0 ${(told.steps.length - last) * width}px` })];
  const head = columns.map((column) => make("span", { role: "columnheader", class: "sw-cell", "aria-colindex": column + 2 }, stepName(told.steps[column])));
  table.setAttribute("aria-colcount", told.steps.length + 1);
  const rows = told.prompts.map((prompt, row) => make("div", { role: "row", class: "sw-row" },
    make("span", { role: "rowheader", class: "sw-label", title: prompt }, prompt),
    ...spread(columns.map((column) => make("span", { role: "cell", class: "sw-cell", "aria-colindex": column + 2 }, kept(cellOf(row, column)))))));
  const focused = document.activeElement && scroll.contains(document.activeElement) ? document.activeElement : null;
  table.replaceChildren(make("div", { role: "row", class: "sw-row" }, make("span", { role: "columnheader", class: "sw-label" }, make("span", { class: "unseen" }, "Prompt")), ...spread(head)), ...rows);
  if (anew && follow) scroll.scrollLeft = told.steps.length * width;
  if (focused && focused !== scroll && focused.isConnected) focused.focus({ preventScroll: true });
}

// A picture that was on the page stays the same element: it does not flicker and keeps the keyboard's focus.
let buttons = new Map();
function kept(picture) {
  if (!picture) return pictureButton(null);
  const key = smallOf(picture);
  if (!buttons.has(key)) buttons.set(key, pictureButton(picture, (pressed) => open(cellOf(pressed.row, pressed.column) || pressed)));
  return buttons.get(key);
}

function drawOne() {
  const start = told.steps[0] === 0 && beside.checked && place > 0;
  slider.value = place;
  slider.setAttribute("aria-valuetext", stepName(told.steps[place]));
  stepShown.textContent = stepName(told.steps[place]);
  const shown = (picture, words) => make("figure", {}, pictureButton(picture, open), make("figcaption", {}, words));
  ones.replaceChildren(...told.prompts.map((prompt, row) => make("section", {}, make("h4", {}, prompt),
    make("div", { class: "sw-pair" }, start ? shown(cellOf(row, 0), "before") : null, shown(cellOf(row, place), stepName(told.steps[place]))))));
}

scroll.addEventListener("scroll", () => {
  follow = scroll.scrollLeft + scroll.clientWidth > scroll.scrollWidth - 20;
  requestAnimationFrame(() => drawWall());
});
new ResizeObserver(() => scroll.hidden || drawWall()).observe(scroll);

async function receive() {
  const { run, version, waiting } = props.value || {};
  if (!run) return;
  nothing.textContent = waiting;
  const reply = await fetch(`/atelier/runs/${encodeURIComponent(run)}/previews?v=${version}`);
  const answer = reply.ok ? await reply.json() : { prompts: [], steps: [], cells: [] };
  if ((props.value || {}).run !== run) return; // another run was chosen meanwhile
  if (told.run !== run) {
    buttons = new Map();
    follow = true;
  }
  told = { run, ...answer };
  draw();
}
watch("value", receive);
receive();
