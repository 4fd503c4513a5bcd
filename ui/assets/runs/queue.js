// The queue: what is going, what waits, in which order. Runs inside gr.HTML, after dom.js.
// It is drawn anew when something has changed, but not under the hand that drags or chooses.
const board = make("div");
const spoken = make("p", { class: "spoken", "aria-live": "polite" });
element.append(board, spoken);
let dragged = null; // id of the run that is being dragged
let moved = null; // the run whose new place is told to screen readers

const order = (act, more = {}) => trigger("order", { act, ...more });
const inHand = () => dragged !== null || focused()?.tagName === "SELECT";
const focused = () => {
  const active = element.getRootNode().activeElement;
  return board.contains(active) ? active : null;
};

function receive() {
  if (inHand()) return;
  const view = props.value ?? {};
  const key = focused()?.dataset.key;
  board.replaceChildren();
  if (!view.devices) return;
  board.append(...[interruption(view.interrupted), head(view), going(view.going), waiting(view)].filter(Boolean));
  if (key) board.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
  tell(view.waiting);
}

function tell(rows) {
  const place = rows.findIndex((row) => row.id === moved?.id);
  if (moved && place >= 0 && place !== moved.place) spoken.textContent = `${moved.name} is now number ${place + 1} of ${rows.length}.`;
  if (place !== moved?.place) moved = null;
}

function head({ paused, going, waiting }) {
  const counts = [going.length && `${going.length} going`, waiting.length && `${waiting.length} waiting`].filter(Boolean).join(", ");
  const words = paused ? "Paused: what is going goes on, nothing further starts." : counts || "Nothing is going or waiting.";
  const turn = paused ? button("Let the queue go on", () => order("go_on"), { class: "primary", "data-key": "turn" })
    : button("Pause the queue", () => order("pause"), { "data-key": "turn" });
  return make("div", { class: "head" }, make("h3", {}, "Queue"), make("span", { class: "quiet" }, words), turn);
}

function interruption(names) {
  if (names.length === 0) return null;
  const told = names.length === 1 ? `${names[0]} was interrupted, by a restart or by force.` : `${names.length} runs were interrupted, by a restart or by force: ${names.join(", ")}.`;
  return make("div", { class: "interrupted", role: "status" }, make("span", {}, told),
    button(names.length === 1 ? "Put it back" : "Put them back", () => order("put_back"), { class: "primary", "data-key": "put-back" }),
    button(names.length === 1 ? "Leave it" : "Leave them", () => order("leave"), { "data-key": "leave" }));
}

function going(runs) {
  if (runs.length === 0) return null;
  return make("ul", { "aria-label": "Going" }, ...runs.map((run) => make("li", { class: "going" },
    name(run), make("span", { class: "quiet" }, [run.word, run.device].join(" on ")),
    make("span", { class: "bar", role: "progressbar", "aria-label": `Steps of ${run.name}`, "aria-valuenow": run.percent, "aria-valuemin": 0, "aria-valuemax": 100 },
      make("i", { style: `width:${run.percent}%` })),
    make("span", { class: "quiet when" }, [`${run.percent} %`, run.left].filter(Boolean).join(", ")))));
}

function waiting({ waiting: rows, devices }) {
  if (rows.length === 0) return null;
  return make("ol", { "aria-label": "Waiting" }, ...rows.map((run, place) => row(run, place, rows.length, devices)));
}

function row(run, place, count, devices) {
  const move = (text, label, to, useless) => button(text, () => {
    if (useless) return;
    moved = { id: run.id, name: run.name, place };
    order("move", { run: run.id, to });
  }, { class: "icon", title: label, "aria-label": `${label}: ${run.name}`, "aria-disabled": String(useless), "data-key": `${to} ${run.id}` });
  const line = make("li", { class: "waiting", draggable: "true" },
    make("span", { class: "place" }, String(place + 1)), name(run),
    make("span", { class: "quiet when" }, run.start), choice(run, devices),
    make("span", { class: "moves" },
      move("⤒", "Start first", "first", place === 0), move("↑", "Start earlier", "earlier", place === 0), move("↓", "Start later", "later", place === count - 1),
      button("✕", () => order("remove", { run: run.id }), { class: "icon", title: "Take out of the queue", "aria-label": `Take out of the queue: ${run.name}`, "data-key": `remove ${run.id}` })));
  dragging(line, run, place);
  return line;
}

function choice(run, devices) {
  if (devices.length === 0) return null;
  const known = devices.some(([value]) => value === run.device) ? devices : [...devices, [run.device, run.device]];
  const select = make("select", { "aria-label": `Train ${run.name} on`, "data-key": `device ${run.id}`,
    onchange: () => { order("device", { run: run.id, device: select.value }); select.blur(); }, onblur: () => setTimeout(receive) },
    ...known.map(([value, text]) => make("option", { value, selected: value === run.device }, text)));
  return select;
}

function dragging(line, run, place) {
  line.addEventListener("dragstart", (event) => {
    dragged = run;
    event.dataTransfer.effectAllowed = "move";
    event.dataTransfer.setData("text/plain", run.name);
  });
  line.addEventListener("dragend", () => { dragged = null; receive(); });
  line.addEventListener("dragover", (event) => { if (dragged) { event.preventDefault(); line.classList.add("over"); } });
  line.addEventListener("dragleave", () => line.classList.remove("over"));
  line.addEventListener("drop", (event) => {
    event.preventDefault();
    line.classList.remove("over");
    if (dragged && dragged.id !== run.id) order("move", { run: dragged.id, to: place + 1 });
  });
}

const name = (run) => button(run.name, () => trigger("pick", { id: run.id }), { class: "name", title: "Show this run", "data-key": `show ${run.id}` });

watch("value", receive);
receive();
