// A LoRA of the hub by its name: getting it, choosing one of several, using it. Runs inside gr.HTML, after dom.js.
const named = make("input", { type: "text", "aria-label": "LoRA on the Hugging Face Hub", placeholder: "owner/name", autocomplete: "off", spellcheck: "false", onkeydown: (event) => event.key === "Enter" && get(named.value) });
const begin = button("Get", () => get(named.value));
const job = make("div", { "aria-live": "polite" });
const fold = make("details", {}, make("summary", {}, "From the Hugging Face Hub"), make("div", { class: "form" }, make("label", { class: "wide" }, named), begin), job);
element.append(fold);
let view = {};

const get = (name) => trigger("get", { name });

function receive() {
  const before = view;
  view = props.value ?? {};
  if (view.job && JSON.stringify(before) !== JSON.stringify(view)) fold.open = true;
  begin.disabled = view.job?.state === "running";
  showJob();
}

function showJob() {
  const now = view.job;
  tellJob(job, now, { running: `asks the Hub for ${now?.name}`, stopped: "The download was stopped.", failed: "This did not work." }, "Download");
  if (now?.state === "finished") showResult(now);
}

function showResult({ result, model, warnings }) {
  warnings.forEach((text) => job.append(make("p", { class: "detail" }, text)));
  if (result.choices.length) {
    const rows = result.choices.map((name) => make("li", {}, make("span", {}, name), button("Get", () => get(name), { "aria-label": `Get ${name}` })));
    return job.append(make("p", {}, `${result.name} holds several LoRAs:`), make("ul", {}, ...rows));
  }
  job.append(make("p", { class: "job" }, result.name, button("Use it", () => trigger("put", { name: result.name }))));
  if (model) job.append(make("p", { class: "job" }, `Made for ${model}.`, button("Use this model", () => trigger("use_model", { model }))));
}

watch("value", receive);
receive();
