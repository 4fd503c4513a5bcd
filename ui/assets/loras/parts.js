// Strengths by part and block of one LoRA: sliders for what its file really has, and the same as text for those who
// know it. Runs inside gr.HTML after dom.js. `props.value`: `text` (name:number, name:number ...), the `file`, and the
// `weight` of the whole LoRA, which counts wherever no name does.
const ENDS = 2, STEP = 0.05;
let named = new Map(); // name -> number, in the order in which they were set
let textShown = null, fileShown = null, tree = null;
let lines = []; // { place, above, range, number, reset, node }: the sliders, outer ones before those inside

const told = make("span", { class: "told" });
const summary = make("summary", {}, "By part and block", told);
const places = make("div", { class: "places" });
const presets = make("select", { "aria-label": "Presets for parts and blocks", onchange: usePreset });
const text = make("input", { type: "text", placeholder: "text_encoder:0, unet.mid_block:1.2", spellcheck: "false", onchange: readText });
const asText = make("label", { class: "as-text" }, "The same as text", text);
const fold = make("details", { ontoggle: load, hidden: true }, summary, make("div", { class: "head" }, presets, button("Reset all", () => use(new Map()))), places, asText);
element.replaceChildren(fold);

const weight = () => Number(props.value?.weight ?? 1);
const round = (number) => String(Math.round(number * 1000) / 1000);
// MID, IN04 and dots, spaces or underscores between words are other ways to write the same: see strengths.py
function sameName(name) {
  const short = /^(IN|OUT)(\d\d)$/.exec(name.toUpperCase());
  if (short) name = `unet.${{ IN: "input", OUT: "output" }[short[1]]}_blocks.${Number(short[2])}`;
  if (["MID", "M00"].includes(name.toUpperCase())) name = "unet.mid_block";
  return name.trim().split(/[._ ]/).join(" ").replace("middle block", "mid block");
}

function parse(given) {
  const items = given.split(",").map((item) => item.trim()).filter(Boolean);
  return new Map(items.map((item) => [item.slice(0, item.lastIndexOf(":")).trim() || item, Number(item.slice(item.lastIndexOf(":") + 1))]));
}

const write = (between) => [...named].map(([name, number]) => `${name}:${number}`).join(between);
const nameOf = (place) => [...named.keys()].find((name) => sameName(name) === sameName(place.name));
const nameOfAllTexts = (place) => (place.name.startsWith("text_encoder") ? [...named.keys()].find((name) => name.toUpperCase() === "BASE") : undefined);

// What counts at a place: its own number, else that of the place around it, else the weight of the whole.
function effective({ place, above }) {
  const name = nameOf(place) ?? (above ? undefined : nameOfAllTexts(place));
  return name === undefined ? (above ? effective(above) : weight()) : named.get(name);
}

function set(line, number) {
  const own = nameOf(line.place);
  if (number === null) named.delete(own);
  else if (Number.isFinite(number)) named.set(own ?? line.place.name, number);
  tell();
}

function use(numbers) {
  named = numbers;
  tell();
}

function tell() {
  textShown = write(",");
  props.value = { ...props.value, text: textShown };
  show();
  trigger("edit");
}

function usePreset() {
  const chosen = tree.presets[presets.selectedIndex - 1];
  presets.selectedIndex = 0;
  use(new Map(chosen.ended.map((name) => [name, 0])));
}

function readText() {
  const wrong = text.value.split(",").map((item) => item.trim()).find((item) => item && !/^[^:]+:\s*[-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i.test(item));
  text.setCustomValidity(wrong ? `${wrong} is not of the form NAME:NUMBER` : "");
  if (!wrong) return use(parse(text.value));
  text.setAttribute("aria-invalid", "true");
  text.reportValidity();
}

async function load() {
  const file = props.value?.file;
  if (!fold.open || !file || file === fileShown) return;
  fileShown = file;
  places.replaceChildren(make("p", { class: "quiet" }, "Reading the file …"));
  const answer = await server.blocks({ file }).catch(() => ({ problem: "The program does not answer." }));
  if (file !== fileShown) return;
  tree = answer.problem ? null : answer;
  lines = [];
  places.replaceChildren(...(tree ? tree.places.map((place) => drawPlace(place, null)) : [make("p", { class: "quiet" }, answer.problem)]));
  presets.replaceChildren(...["Presets", ...(tree ? tree.presets.map(({ label }) => label) : [])].map((label) => make("option", {}, label)));
  presets.disabled = !tree;
  show();
}

function drawPlace(place, above) {
  const full = above && above.place.name.includes(".") ? `${above.full}, ${place.label}` : place.label;
  const line = { place, above, full };
  const change = (event) => set(line, event.target.value.trim() === "" ? null : Number(event.target.value));
  line.range = make("input", { type: "range", min: -ENDS, max: ENDS, step: STEP, "aria-label": `Strength: ${full}`, oninput: change });
  line.number = make("input", { type: "number", step: STEP, "aria-label": `Strength as a number: ${full}`, onchange: change });
  line.reset = button("↺", () => { set(line, null); line.range.focus(); }, { class: "reset", title: "As strong as what it lies in", "aria-label": `Reset: ${full}` });
  lines.push(line);
  const inside = make("div", { class: "inside", hidden: true }, ...place.inside.map((inner) => drawPlace(inner, line)));
  line.inside = inside;
  line.toggle = place.inside.length ? button("▸", () => unfold(line, inside.hidden), { class: "toggle", "aria-expanded": "false", "aria-label": `Blocks in: ${full}` }) : null;
  line.row = make("div", { class: "line" }, make("span", { class: "name" }, line.toggle ?? make("i"), make("span", { title: place.name }, place.label)), line.range, line.number, line.reset);
  return make("div", {}, line.row, inside);
}

function unfold(line, open) {
  line.inside.hidden = !open;
  line.toggle.setAttribute("aria-expanded", String(open));
}

function show() {
  for (const line of lines) {
    const own = nameOf(line.place) !== undefined, number = effective(line);
    line.row.classList.toggle("own", own);
    line.reset.disabled = !own;
    if (Number(line.range.value) !== number) line.range.value = number;
    if (document.activeElement !== line.number) line.number.value = round(number);
    if (own && line.above && line.above.inside.hidden && !line.opened) unfold(line.above, (line.opened = true));
  }
  if (document.activeElement !== text || !text.validity.customError) text.value = write(", ");
  text.removeAttribute("aria-invalid");
  told.textContent = named.size ? ` · ${named.size} set` : "";
}

function receive() {
  const { text: given = "", file } = props.value || {};
  fold.hidden = !file;
  if (!file) fold.open = false;
  if (given !== textShown) {
    named = parse(given);
    textShown = given;
    if (named.size && file) fold.open = true;
  }
  load();
  show();
}

watch("value", receive);
receive();
