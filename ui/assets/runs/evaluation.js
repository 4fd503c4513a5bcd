// The evaluation of a run: start, progress, table, curves, nearest training pictures. Runs inside gr.HTML, after
// evaluation_figures.js. Prompts and names of files are only ever put in as text.
const model = make("input", { type: "text", id: "evaluation-model", autocomplete: "off", spellcheck: "false", placeholder: "none" });
const pictures = make("input", { type: "number", id: "evaluation-pictures", min: 1, max: 256, step: 1 });
const begin = button("Evaluate", () => trigger("start", { run: view.run, model: model.value, pictures: Number(pictures.value), metrics: ticked(measures), steps: ticked(saved).map(Number) }), { class: "primary" });
const measures = make("div", { class: "measures" });
const saved = make("div", { class: "saved" });
const howMany = make("summary");
const which = make("details", { class: "which" }, howMany, make("p", { class: "buttons" }, button("All", () => tickAll(true)), button("None", () => tickAll(false))), saved);
const takes = make("p", { class: "quiet takes", "aria-live": "polite" });
const form = make("div", { class: "form", oninput: showForm },
  make("fieldset", {}, make("legend", {}, "What to measure"), measures),
  which,
  make("label", {}, make("span", {}, "Pictures per checkpoint"), pictures),
  make("label", { class: "wide" }, make("span", {}, "Model that looks at pictures, optional"), model,
    make("small", {}, "Folder or Hugging Face id of a CLIP or DINOv2 model: tells how alike pictures drawn and training pictures are.")),
  begin, takes);
const job = make("div", { "aria-live": "polite" });
const found = make("div", { class: "found" });
const intro = make("p", { class: "quiet" }, "Measures every checkpoint beside the base model: the loss on held-out pictures, drift without the trigger, and whether pictures copy training pictures. It says which checkpoint is the best, and changes nothing.");
element.append(intro, form, job, found);
let view = {};
let chosen = null; // the step whose pictures are shown
let drawnFor = ""; // what `found` shows

function receive() {
  const before = view;
  view = props.value ?? {};
  if (!view.run) return;
  if (before.run !== view.run) {
    chosen = null;
    pictures.value = view.pictures;
    model.value = view.model;
    offer();
  }
  offerSaved();
  showForm();
  showJob();
  const now = JSON.stringify([view.run, view.result, view.steps]);
  if (now !== drawnFor) showResult();
  drawnFor = now;
}

const ticked = (box) => [...box.querySelectorAll("input:checked:not(:disabled)")].map((input) => input.value);

function tickAll(on) {
  saved.querySelectorAll("input").forEach((input) => (input.checked = on));
  showForm();
}

// The measures, ticked as they were the last time.
function offer() {
  measures.replaceChildren(...view.metrics.map(({ name, title, about, on }) =>
    make("label", { class: "check" }, make("input", { type: "checkbox", value: name, checked: on }), make("span", {}, title, make("small", {}, about)))));
  const similarity = measures.querySelector("[value=similarity]");
  similarity.checked = Boolean(view.model);
  model.oninput = () => (similarity.checked = Boolean(model.value.trim()));
  saved.replaceChildren();
}

// A tick for each checkpoint; those that come while the page is open are ticked too.
function offerSaved() {
  const off = [...saved.querySelectorAll("input:not(:checked)")].map((input) => Number(input.value));
  const now = [...saved.querySelectorAll("input")].map((input) => Number(input.value));
  if (now.join() === view.steps.join()) return;
  saved.replaceChildren(...view.steps.map((step) => make("label", { class: "check" }, make("input", { type: "checkbox", value: step, checked: !off.includes(step) }), `Step ${step}`)));
}

function showForm() {
  const [count, all] = [ticked(saved).length, view.steps.length];
  measures.querySelector("[value=similarity]").disabled = !model.value.trim();
  pictures.disabled = !draws();
  begin.disabled = count === 0 || !ticked(measures).length || view.job?.state === "running";
  begin.textContent = all === 0 ? "No checkpoints yet" : count === 0 ? "No checkpoint chosen" : `Evaluate ${all === 1 ? "the checkpoint" : `${count} checkpoint${count === 1 ? "" : "s"}`}`;
  which.hidden = all < 2;
  howMany.textContent = count === all ? `Checkpoints: all ${all}` : `Checkpoints: ${count} of ${all}`;
  const seconds = secondsFor(count);
  takes.textContent = seconds === null || !count ? "" : `Takes about ${inWords(seconds)}, and the time to load the model. What was measured before with the same choice is not measured again.`;
}

const draws = () => ticked(measures).some((name) => name === "nearest" || name === "similarity");

// The base model is measured beside the checkpoints.
function secondsFor(count) {
  if (!view.costs) return null;
  const { once, validation, drift, picture } = view.costs;
  const chosen = ticked(measures);
  const each = (chosen.includes("validation") ? validation : 0) + (chosen.includes("drift") ? drift : 0) + (draws() ? Number(pictures.value) * picture : 0);
  return each * (count + 1) + (chosen.includes("drift") ? once : 0);
}

function inWords(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  return seconds < 5400 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function showJob() {
  const stopped = "The evaluation was stopped. What was measured is kept: start it again to go on.";
  tellJob(job, view.job, { running: view.job?.what, stopped, failed: "The evaluation did not work." }, "Evaluation");
}

function showResult() {
  const { result } = view;
  found.replaceChildren();
  if (!result) return;
  const best = result.rows.find((row) => row.best);
  const title = best ? make("b", {}, `Best: step ${best.step}. `) : make("b", {}, "No best checkpoint. ");
  const figures = result.columns.map((column) => figure(column, result.rows)).filter(Boolean);
  const hints = result.hints.length ? make("ul", { class: "hints" }, ...result.hints.map((text) => make("li", {}, text))) : null;
  found.append(...[make("p", { class: "verdict" }, title, result.why), hints, table(result),
    result.validated ? make("p", { class: "quiet" }, `Validation loss of ${result.validated}.`) : null,
    figures.length ? make("div", { class: "figures" }, ...figures) : null, gallery(result, best)].filter(Boolean));
}

function table({ columns, rows }) {
  const head = make("tr", {}, make("th", { scope: "col" }, "Checkpoint"), ...columns.map((column) => make("th", { scope: "col", title: column.about }, column.title)), make("td"));
  const body = rows.map((row) => make("tr", { class: row.best ? "best" : "" },
    make("th", { scope: "row" }, row.title, row.best ? make("span", { class: "mark" }, "best") : null),
    ...columns.map((column) => make("td", {}, written(row.values[column.name], column.name))),
    make("td", {}, row.kept ? button("Generate with this", () => trigger("generate", { run: view.run, step: row.step }), { "aria-label": `Generate with step ${row.step}` }) : row.base ? null : make("span", { class: "quiet" }, "no longer kept"))));
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Checkpoints and what was measured of them" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...body)));
}

function gallery({ rows }, best) {
  const drawn = rows.filter((row) => row.drawn.length);
  if (!drawn.length) return null;
  const row = drawn.find((each) => each.step === chosen) ?? drawn.find((each) => each === best) ?? drawn[drawn.length - 1];
  const pick = make("select", { "aria-label": "Checkpoint whose pictures are shown", onchange: (event) => { chosen = Number(event.target.value); swap(); } },
    ...drawn.map((each) => make("option", { value: each.step, selected: each === row }, each.title)));
  const box = make("section", { class: "gallery" }, make("h3", {}, "Pictures drawn, beside the training picture each is nearest to"), pick,
    make("div", { class: "pairs" }, ...row.drawn.map(pair)));
  const swap = () => {
    const next = gallery({ rows }, best);
    box.replaceWith(next);
    next.querySelector("select").focus();
  };
  return box;
}

function pair(each) {
  const near = each.nearest;
  const image = (url, alt) => make("a", { href: url, target: "_blank", rel: "noopener" }, make("img", { src: `${url}&thumbnail`, alt, loading: "lazy" }));
  const told = near ? `${near.name}: similarity ${near.similarity.toFixed(2)}` : "";
  return make("figure", { class: near?.copied ? "copied" : "" },
    make("div", { class: "two" }, image(each.url, `Drawn: ${each.prompt}`), near ? image(near.url, `Nearest training picture: ${near.name}`) : null),
    make("figcaption", {}, make("span", { class: "prompt" }, each.prompt || "(no prompt)"), near ? make("span", { class: "quiet" }, told) : null,
      near?.copied ? make("strong", {}, "Looks the same as this training picture") : null));
}

watch("value", receive);
receive();
