// The prompts that previews are drawn of, to be changed while the run goes on. Runs inside gr.HTML, after dom.js.
let seen = "";
let shown = ""; // the run and the prompts that the field was filled with

function receive() {
  const value = JSON.stringify(props.value || {});
  if (value === seen) return;
  seen = value;
  const { run, text = "" } = props.value || {};
  const typed = element.querySelector("textarea");
  const keep = typed && shown === `${run} ${text}` ? typed.value : null; // only the state has changed: what is typed stays
  render(keep ?? text);
  shown = `${run} ${text}`;
}

function render(text) {
  const { run, can_sample, when = "", flags = "" } = props.value || {};
  const field = make("textarea", { rows: 4, "aria-label": "Preview prompts, one a line", placeholder: "one prompt a line" });
  field.value = text;
  const use = (sample) => trigger("use", { run, text: field.value, sample });
  element.replaceChildren(
    make("p", { class: "quiet" }, `One prompt a line; ${flags}.`), field,
    make("div", { class: "buttons" }, button("Use these", () => use(false), { class: "main" }),
      can_sample ? button("Use these and sample now", () => use(true)) : null, make("span", { class: "quiet" }, when)));
}

watch("value", receive);
receive();
