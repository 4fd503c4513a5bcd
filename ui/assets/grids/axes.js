// The axes of a grid: what changes, and to what. Runs inside gr.HTML, after dom.js and picker.js; all text is put in as text.
const AXES = [["x", "Columns (X)"], ["y", "Rows (Y)"], ["z", "Sheets (Z)"]];
const WEIGH_AFTER_MS = 450;
let kinds = {}, rows = {}, stamp = null, timer = 0;
const words = make("span", { class: "words", role: "status" });
const general = make("ul", { class: "problems", role: "alert" });
const lists = {};

const isPicked = (kind) => kind === "lora" || kind === "model";
const rowOf = (axis) => ({
  kind: axis?.kind ?? "", row: axis?.row ?? 1,
  picked: isPicked(axis?.kind) ? [...axis.values] : [],
  text: !axis || isPicked(axis.kind) ? "" : Array.isArray(axis.values) ? axis.values.map(quoted).join(kinds[axis.kind]?.form === "line" ? "\n" : ", ") : axis.values,
});
const quoted = (value) => (typeof value === "string" && value.includes(",") ? `"${value.replaceAll('"', '""')}"` : String(value));

function receive() {
  const value = props.value || {};
  if (!value.kinds) return;
  if (value.stamp !== stamp) {
    stamp = value.stamp;
    kinds = Object.fromEntries(JSON.parse(value.kinds).map((kind) => [kind.name, kind]));
    rows = Object.fromEntries(AXES.map(([name]) => [name, rowOf(value.axes?.[name])]));
    render();
    soon();
  }
  tell(value.verdict);
}

function render() {
  element.replaceChildren(
    make("p", { class: "quiet" }, "One picture for each combination. All else comes from the form above, its seed too."),
    make("div", { class: "axes" }, ...AXES.map(([name, title]) => axis(name, title))),
    make("div", { class: "actions" }, button("Draw the grid", () => trigger("start", asked()), { class: "main" }),
      button("Swap X and Y", () => { [rows.x, rows.y] = [rows.y, rows.x]; render(); soon(); }), words),
    general);
  AXES.forEach(([name]) => values(name));
}

function axis(name, title) {
  const row = rows[name];
  const select = make("select", { "aria-label": title, onchange: () => { rows[name] = { ...rowOf(null), kind: select.value }; render(); soon(); } },
    make("option", { value: "" }, name === "x" ? "Choose what changes" : "Nothing"),
    ...Object.values(kinds).map((kind) => make("option", { value: kind.name, selected: kind.name === row.kind }, kind.title)));
  lists[name] = make("ul", { class: "problems", role: "alert" });
  return make("fieldset", { "data-axis": name }, make("legend", {}, title), select, make("div", { class: "values" }), lists[name]);
}

// The field for an axis's values, by its kind.
async function values(name) {
  const row = rows[name], kind = kinds[row.kind], place = element.querySelector(`[data-axis="${name}"] .values`);
  if (!kind) return;
  const parts = [];
  if (row.kind === "lora" || row.kind === "weight") {
    const number = make("input", { type: "number", min: 1, max: 16, value: row.row, oninput: () => { row.row = number.valueAsNumber || 1; soon(); } });
    parts.push(make("label", { class: "which" }, "Which LoRA of the form", number));
  }
  const groups = kind.form === "entry" ? await offersOf(row.kind) : [];
  if (rows[name] !== row) return; // something else was chosen meanwhile
  if (isPicked(row.kind)) parts.push(filePicker(row, groups, soon));
  else {
    const input = make(kind.form === "line" ? "textarea" : "input", { "aria-label": `Values of ${kind.title}`, rows: 3, spellcheck: "false", placeholder: example(row.kind),
      oninput: () => { row.text = input.value; soon(); } });
    input.value = row.text;
    parts.push(input, make("small", {}, kind.help));
    if (groups.length) parts.push(nameButtons(input, groups.flatMap((group) => group.items)));
  }
  place.replaceChildren(...parts);
}

const example = (kind) => ({ seed: "1-4", steps: "10-30 (+10)", guidance: "3-9 (+2)", weight: "0.4-1.2 (+0.2)", clip_skip: "1-2", size: "512x512, 512x768", prompt: "a cat, sitting\na dog, running",
  prompt_sr: "cat, dog, horse", negative: "blurry\nblurry, text", sampler: "Euler a, DPM++ 2M Karras", schedule: "Karras, SGM Uniform", strength: "0.3-0.9 [4]" })[kind] ?? "";

function asked() {
  const axes = Object.fromEntries(AXES.map(([name]) => {
    const row = rows[name];
    return [name, row.kind ? { kind: row.kind, row: row.row, values: isPicked(row.kind) ? row.picked : row.text } : null];
  }));
  return { axes, stamp };
}

// Count, time and problems follow what is typed, once typing pauses; a folded panel asks for nothing.
function soon() {
  clearTimeout(timer);
  timer = setTimeout(() => element.offsetParent && trigger("weigh", asked()), WEIGH_AFTER_MS);
}

function tell(verdict) {
  if (!verdict) return;
  words.textContent = verdict.words;
  const told = (axis) => verdict.problems.filter((problem) => problem.axis === axis).map((problem) => make("li", {}, problem.text));
  AXES.forEach(([name]) => lists[name]?.replaceChildren(...told(name)));
  general.replaceChildren(...told(""));
}

element.addEventListener("pointerenter", soon); // the form may have changed since
watch("value", receive);
receive();
