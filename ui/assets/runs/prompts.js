// The prompts that previews are drawn of, to be changed while the run goes on. Runs inside gr.HTML, after dom.js.
let shown = {}; // the run, and the prompts it had when it was looked at last
let sent = null; // what the field held when they were ordered, until the run has them

const field = make("textarea", { rows: 4, "aria-label": "Preview prompts, one a line", placeholder: "one prompt a line" });
const about = make("p", { class: "quiet" });
const when = make("span", { class: "quiet" });
const sample = button("Use these and sample now", () => use(true));
element.append(about, field, make("div", { class: "buttons" }, button("Use these", () => use(false), { class: "main" }), sample, when));

function receive() {
  const { run = "", text = "", can_sample: canSample = false, when: words = "", flags = "" } = props.value || {};
  const typed = run === shown.run && field.value !== shown.text && field.value !== sent;
  if (!typed && field.value !== text) field.value = text;
  if (run !== shown.run || text !== shown.text) sent = null;
  shown = { run, text };
  about.textContent = `One prompt a line; ${flags}.`;
  when.textContent = words;
  sample.hidden = !canSample;
}

function use(now) {
  sent = field.value;
  trigger("use", { run: shown.run, text: sent, sample: now });
}

watch("value", receive);
receive();
