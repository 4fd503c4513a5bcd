// Several runs beside each other: curves, results, settings that differ, previews. Runs after the charts' scripts and
// viewer.js. Which runs: ticked in the list, or clicked with Shift or Ctrl; kept in the page's address, to be shared.
const MOST_RUNS = 8;
let chosen = []; // { id, colour }
let shownRuns = []; // as the server told: { id, name, results, colour, wall }
let askedFor = 0;
let shownSteps = 0; // how many the slider goes through

const panel = makePanel();
const title = make("h2"), problem = make("p", { class: "quiet", role: "status" });
const results = make("tbody"), settings = make("tbody"), same = make("p", { class: "quiet" });
const resultsHead = make("thead"), settingsHead = make("thead");
const evaluationsHead = make("thead"), evaluations = make("tbody"), unlike = make("p", { class: "quiet" });
const evaluated = make("section", { hidden: true }, make("h3", {}, "Evaluations"), unlike, scrolling("Evaluations", evaluationsHead, evaluations));
const settingsTable = scrolling("Settings that differ", settingsHead, settings);
const slider = make("input", { type: "range", min: 0, step: 1, "aria-label": "Step of the previews", oninput: drawPreviews });
const stepShown = make("output"), previews = make("div", { class: "cmp-previews" });
const stepper = make("div", { class: "sw-bar" }, slider, stepShown);
const noPreviews = make("p", { class: "quiet" }, "None of these runs has previews.");
const view = make("section", { class: "cmp", "aria-label": "Comparison", hidden: true },
  make("header", {}, title, button("Close comparison", () => choose([]))), problem, panel.node,
  make("h3", {}, "Results"), scrolling("Results", resultsHead, results), evaluated, make("h3", {}, "Settings that differ"), same, settingsTable,
  make("h3", {}, "Previews"), noPreviews, stepper, make("div", { class: "sw" }, previews));
element.replaceChildren(view);
const open = makeViewer(neighbour, ({ column, row }) => pictureAt(shownRuns[column], row, 0, true));

function scrolling(label, ...parts) {
  return make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": label }, make("table", {}, ...parts));
}

function choose(ids) {
  const kept = chosen.filter((run) => ids.includes(run.id));
  const added = ids.filter((id) => !kept.some((run) => run.id === id)).slice(0, MOST_RUNS - kept.length);
  problem.textContent = ids.length > MOST_RUNS ? `At most ${MOST_RUNS} runs can be compared at once.` : "";
  for (const id of added) {
    const taken = kept.map((run) => run.colour);
    kept.push({ id, colour: [...Array(MOST_RUNS).keys()].find((colour) => !taken.includes(colour)) });
  }
  chosen = kept;
  const address = new URL(location);
  if (chosen.length) address.searchParams.set("compare", chosen.map((run) => run.id).join());
  else address.searchParams.delete("compare");
  history.replaceState(history.state, "", address);
  markList();
  refresh();
}

const toggle = (id) => choose(chosen.some((run) => run.id === id) ? chosen.map((run) => run.id).filter((each) => each !== id) : [...chosen.map((run) => run.id), id]);

// The list is made anew by the server with each change: its ticks are set here.
function markList() {
  document.querySelectorAll("#run-list [data-compare]").forEach((box) => {
    const found = chosen.find((run) => run.id === box.dataset.compare);
    box.checked = Boolean(found);
    box.closest(".run-entry").classList.toggle("compared", Boolean(found));
  });
}

async function refresh() {
  const turn = ++askedFor, comparing = chosen.length > 1;
  view.hidden = !comparing;
  const column = element.closest(".run-main");
  if (column) column.classList.toggle("comparing", comparing);
  if (!comparing) return;
  const reply = await fetch(`/atelier/compare?runs=${chosen.map((run) => encodeURIComponent(run.id)).join()}`);
  if (!reply.ok || turn !== askedFor) return;
  const told = await reply.json();
  const walls = new Map(shownRuns.map((run) => [run.id, run]));
  shownRuns = told.runs.map((run) => ({ ...run, ...chosen.find(({ id }) => id === run.id), wall: (walls.get(run.id) || {}).wall, wallVersion: (walls.get(run.id) || {}).wallVersion }));
  if (told.runs.length < chosen.length) problem.textContent = "Some of the runs are gone.";
  draw(told);
  await Promise.all(shownRuns.filter((run) => run.wallVersion !== run.previews).map(readWall));
  if (turn === askedFor) drawPreviews();
}

async function readWall(run) {
  const reply = await fetch(`/atelier/runs/${encodeURIComponent(run.id)}/previews?v=${run.previews}`);
  if (reply.ok) Object.assign(run, { wall: await reply.json(), wallVersion: run.previews });
}

function draw(told) {
  title.textContent = `Comparing ${shownRuns.length} runs`;
  panel.show(shownRuns.map(({ id, name, colour }) => ({ id, name, colour })), "No steps done.");
  const head = () => make("tr", {}, make("td"), ...shownRuns.map((run) => make("th", { scope: "col" }, make("span", { class: "key", style: colourOf(run) }, run.name))));
  resultsHead.replaceChildren(head());
  results.replaceChildren(...Object.keys(shownRuns.length ? shownRuns[0].results : {}).map((name) => rowOf("td", [name, ...shownRuns.map((run) => run.results[name])])));
  evaluated.hidden = !told.evaluations.rows.length;
  unlike.textContent = told.evaluations.note;
  unlike.hidden = !told.evaluations.note;
  evaluationsHead.replaceChildren(head());
  evaluations.replaceChildren(...told.evaluations.rows.map(({ label, about, values }) => titled(rowOf("td", [label, ...values]), about)));
  settingsHead.replaceChildren(head());
  settings.replaceChildren(...told.differences.map(({ label, name, values }) => titled(rowOf("td", [label, ...values]), name)));
  settingsTable.hidden = !told.differences.length;
  same.hidden = Boolean(told.differences.length);
  same.textContent = "All settings are the same.";
}

function titled(row, title) {
  row.title = row.firstChild.title = title;
  return row;
}

const stepsOfAll = () => [...new Set(shownRuns.flatMap((run) => (run.wall ? run.wall.steps : [])))].sort((a, b) => a - b);
const promptsOfAll = () => [...new Set(shownRuns.flatMap((run) => (run.wall ? run.wall.prompts : [])))];

// The picture of a prompt nearest to a step; only at that very step where `exact`.
function pictureAt(run, prompt, step, exact = false) {
  const row = run.wall ? run.wall.prompts.indexOf(promptsOfAll()[prompt]) : -1;
  if (row < 0) return null;
  const there = run.wall.steps.map((_, index) => index).filter((index) => run.wall.cells[row][index]);
  const best = there.reduce((found, index) => (found === null || Math.abs(run.wall.steps[index] - step) < Math.abs(run.wall.steps[found] - step) ? index : found), null);
  if (best === null || (exact && run.wall.steps[best] !== step)) return null;
  const [name, stamp] = run.wall.cells[row][best];
  return { run: run.id, name, stamp, prompt: run.wall.prompts[row], step: run.wall.steps[best], label: run.name, row: prompt, column: shownRuns.indexOf(run) };
}

const stepNow = () => stepsOfAll()[Number(slider.value)];
function neighbour({ row, column }, right, down) {
  const run = shownRuns[column + right];
  return run ? pictureAt(run, row + down, stepNow()) : null;
}

function drawPreviews() {
  const steps = stepsOfAll(), prompts = promptsOfAll();
  noPreviews.hidden = steps.length > 0;
  stepper.hidden = !steps.length;
  const follow = !shownSteps || Number(slider.value) === shownSteps - 1; // the newest step is kept in sight
  if (shownSteps !== steps.length) {
    shownSteps = steps.length;
    slider.max = Math.max(0, shownSteps - 1);
    if (follow) slider.value = slider.max;
  }
  stepShown.textContent = steps.length ? stepName(stepNow()) : "";
  slider.setAttribute("aria-valuetext", stepShown.textContent);
  previews.replaceChildren(...prompts.map((prompt, row) => make("section", {}, make("h4", {}, prompt), make("div", { class: "cmp-row" },
    ...shownRuns.map((run) => previewOf(run, pictureAt(run, row, stepNow())))))));
}

function previewOf(run, picture) {
  const words = picture ? `${run.name}, ${stepName(picture.step)}` : run.name;
  return make("figure", {}, pictureButton(picture, open), make("figcaption", {}, make("span", { class: "key", style: colourOf(run) }, words)));
}

function listenToList() {
  const gone = () => !element.isConnected; // made anew by Gradio: that one listens too
  const clicked = (event) => {
    if (gone()) return document.removeEventListener("click", clicked, true);
    const item = event.target.closest && event.target.closest("#run-list [data-pick]");
    if (!item || !(event.shiftKey || event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    event.stopPropagation();
    toggle(item.dataset.pick);
  };
  const ticked = (event) => {
    if (gone()) return document.removeEventListener("change", ticked);
    if (event.target.matches("#run-list [data-compare]")) toggle(event.target.dataset.compare);
  };
  document.addEventListener("click", clicked, true);
  document.addEventListener("change", ticked);
  const list = document.getElementById("run-list");
  if (list) new MutationObserver(markList).observe(list, { childList: true, subtree: true });
}

listenToList();
watch("value", () => { markList(); refresh(); });
const asked = new URLSearchParams(location.search).get("compare");
if (asked) choose(asked.split(",").filter(Boolean));
