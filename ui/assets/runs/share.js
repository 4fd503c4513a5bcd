// Sharing a run: what would be sent, sending it, how far it is. Runs inside gr.HTML, after dom.js.
const text = (id, more) => make("input", { type: "text", id: `share-${id}`, autocomplete: "off", spellcheck: "false", ...more });
const repo = text("repo", { placeholder: "your account, and the run's name" });
const base = text("base", { placeholder: "where it was a file: owner/name" });
const note = text("note", { maxlength: 2000, placeholder: "over what the card says by itself" });
const samples = make("input", { type: "number", id: "share-samples", min: 0, max: 24, step: 1 });
const who = make("select", { id: "share-who" }, make("option", { value: "" }, "Only me (private)"), make("option", { value: "public" }, "Everyone (public)"));
const tells = make("input", { type: "checkbox" });
const begin = button("Show what would be sent", () => trigger("look", { run: view.run, repo: repo.value, public: who.value === "public", samples: Number(samples.value), describe_dataset: tells.checked, base_model: base.value, note: note.value }), { class: "primary" });
const field = (title, input, wide) => make("label", wide ? { class: "wide" } : {}, make("span", {}, title), input);
const form = make("div", { class: "form" },
  field("Repository, owner/name", repo, true), field("Who sees a new one", who), field("Sample pictures", samples),
  field("Base model on the Hub", base, true), field("Your own words", note, true),
  make("label", { class: "check" }, tells, make("span", {}, "Tell about the pictures", make("small", {}, "Folder names, class prompts and tags, where the file tells of them."))),
  begin);
const job = make("div", { "aria-live": "polite" });
element.append(make("p", { class: "quiet" }, "Sends the LoRA with a model card, settings without paths, and preview pictures. The access token comes from hf auth login or HF_TOKEN alone."), form, job);
let view = {};

function receive() {
  const before = view;
  view = props.value ?? {};
  if (!view.run) return;
  if (before.run !== view.run) {
    [repo.value, base.value, note.value, samples.value, tells.checked] = [view.repo ?? "", view.base_model ?? "", view.note, view.samples, view.describe_dataset];
    who.value = "";
  }
  begin.disabled = view.job?.state === "running";
  showJob();
}

function showJob() {
  const now = view.job;
  tellJob(job, now, { running: now?.what || "asks the Hub", stopped: "Sending was stopped. What is there already is not sent again.", failed: "This did not work." }, "Sending");
  if (now?.state === "finished") showResult(now);
}

function showResult({ id, looks, result }) {
  const seen = result.visibility === "private" ? "only you can see" : "everyone can see";
  const where = `${result.new && looks ? "a new repository" : "the repository"} ${result.repo}, which ${seen}`;
  const files = result.files.map((file) => make("li", {}, make("span", {}, file.name), make("span", {}, `${(file.size_bytes / 1e6).toFixed(file.size_bytes < 1e5 ? 3 : 1)} MB`)));
  job.append(make("p", { class: "verdict" }, looks ? `Would be sent to ${where}.` : `Sent to ${where}. `, looks ? null : make("a", { href: result.url, target: "_blank", rel: "noopener" }, "Open it")));
  job.append(make("ul", {}, ...files));
  if (result.cleaned) job.append(make("p", { class: "quiet" }, "What the file tells of folders and pictures is left out of what is sent."));
  if (looks) job.append(button(`Send to ${result.repo}`, () => trigger("send", { job: id }), { class: "primary" }));
}

watch("value", receive);
receive();
