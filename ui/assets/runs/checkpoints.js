// The checkpoints of a run, newest first, and what can be done with each. Runs inside gr.HTML, after dom.js.
let seen = "";
let open = { step: 0, what: "" }; // the one line whose question is open: "go_on" or "delete"

function receive() {
  const value = JSON.stringify(props.value || {});
  if (value === seen) return; // the same again must not close what is open
  seen = value;
  const typing = document.activeElement?.matches("input") && element.contains(document.activeElement);
  render();
  if (typing) element.querySelector(".question input")?.focus();
}

function render() {
  const { run, items = [] } = props.value || {};
  if (open.run !== run) open = {};
  if (items.length === 0) return element.replaceChildren(make("p", { class: "quiet" }, "None saved yet. Save now asks for one; the last step always makes one."));
  element.replaceChildren(make("ul", {}, ...items.map(line)));
}

function line(item) {
  const { run } = props.value;
  const name = make("span", { class: "step" }, `Step ${item.step}`, item.best ? make("b", {}, "best by validation") : null, make("small", {}, item.size));
  const ask = (what) => ({ "aria-expanded": String(open.step === item.step && open.what === what) });
  const actions = make("span", { class: "actions" },
    button("Generate with this", () => trigger("generate", { run, step: item.step })),
    make("a", { href: item.url, download: true }, "Download"),
    button("Go on from here", () => toggle(item.step, "go_on"), ask("go_on")),
    button("Delete", () => toggle(item.step, "delete"), ask("delete")));
  return make("li", { "data-step": item.step }, name, actions, open.step === item.step ? question(item) : null);
}

function toggle(step, what) {
  const close = open.step === step && open.what === what;
  open = close ? {} : { run: props.value.run, step, what };
  render();
  const field = element.querySelector(".question input, .question button");
  if (field) field.focus();
}

function question(item) {
  const { run, max_steps } = props.value;
  const done = (name, more = {}) => { open = {}; render(); trigger(name, { run, step: item.step, ...more }); };
  const keep = button("Cancel", () => toggle(item.step, open.what));
  if (open.what === "delete") {
    return make("div", { class: "question" }, `Move step ${item.step} to the bin? ${item.warning}`, button("Move to the bin", () => done("remove")), keep);
  }
  const steps = make("input", { type: "number", min: item.step + 1, value: open.steps ?? Math.max(max_steps, item.step + 100), "aria-label": "Steps in all",
    oninput: () => (open.steps = steps.value) }); // kept when a new checkpoint comes meanwhile
  const start = () => done("go_on", { max_steps: steps.valueAsNumber || 0 });
  steps.addEventListener("keydown", (event) => { if (event.key === "Enter") start(); });
  return make("div", { class: "question" },
    make("span", {}, "A new run begins exactly here, with the same settings, and leaves this one as it is. Train it to step"),
    steps, button("Start it", start), keep);
}

watch("value", receive);
receive();
