// The doctor's findings, by severity: their pictures, what mends them, what is to be left as it is.
const SEVERITIES = { error: "Problems: left out of training", warning: "Look at these", info: "Good to know" };
const SAFE = "safe"; // asked about all safe fixes at once
const SHOWN = 12; // findings of one severity before "more"
const opened = new Set(); // severities shown to their end
let asking = null; // { key, fix }, or SAFE: the fix whose sentence is open
let seen = ""; // what is shown; the same again must not close what is open

function receive() {
  const value = JSON.stringify(props.value || {});
  if (value === seen) return;
  seen = value;
  asking = null;
  render();
}

function render() {
  const panel = props.value || {};
  element.replaceChildren();
  if (!panel.checked) return;
  element.append(summary(panel));
  for (const [severity, title] of Object.entries(SEVERITIES)) {
    const found = panel.findings.filter((finding) => finding.severity === severity);
    if (found.length) element.append(...group(severity, title, found));
  }
}

function summary(panel) {
  const when = new Date(panel.checked * 1000);
  const today = when.toDateString() === new Date().toDateString();
  const time = when.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  const said = panel.findings.length ? "" : " Nothing wrong was found.";
  const line = make("p", { class: "quiet", role: "status" }, `Checked ${today ? "at" : `on ${when.toLocaleDateString()},`} ${time}.${said}`);
  const bar = make("div", { class: "fd-bar" }, line);
  if (panel.stale) bar.append(make("strong", {}, "Files have changed since."), button("Check again", checkAgain));
  else if (panel.safe.count) bar.append(button(`Fix all safe ones (${files(panel.safe.count)})`, () => ask(SAFE), { class: "fd-main", "aria-expanded": asking === SAFE }));
  if (panel.left) bar.append(make("span", { class: "quiet" }, `${files(panel.left)} left as they are.`), button("Tell again", () => trigger("again"), { class: "fd-quiet" }));
  if (asking === SAFE) bar.append(sentences(panel.safe.promises, () => trigger("fix_safe")));
  return bar;
}

const files = (count) => `${count} ${count === 1 ? "file" : "files"}`;

function checkAgain() {
  document.querySelector("#check-start")?.click();
}

function group(severity, title, found) {
  const shown = opened.has(severity) ? found : found.slice(0, SHOWN);
  const list = make("ul", { class: `findings fd-${severity}` }, ...shown.map(row));
  if (shown.length < found.length) {
    const more = () => { opened.add(severity); render(); };
    list.append(make("li", {}, button(`Show ${found.length - shown.length} more`, more)));
  }
  return [make("h4", { class: `fd-${severity}` }, `${title} (${found.length})`), list];
}

function row(finding) {
  const actions = make("div", { class: "fd-actions" });
  if (finding.count) actions.append(button(`Show ${finding.count}`, () => { trigger("show", { key: finding.key }); toGrid(); }));
  for (const offer of finding.fixes) actions.append(button(offer.label, () => press(finding, offer), { "aria-expanded": isAsked(finding, offer) }));
  actions.append(button("Leave as is", () => trigger("leave", { key: finding.key }), { class: "fd-quiet", title: "Do not tell this of these files again" }));
  const offer = finding.fixes.find((each) => isAsked(finding, each));
  return make("li", { "data-code": finding.code },
    make("p", {}, make("strong", {}, finding.message), " ", finding.hint),
    finding.pictures.length ? make("div", { class: "fd-pictures" }, ...finding.pictures.map((each) => picture(finding, each)), rest(finding)) : null,
    finding.names.length ? make("p", { class: "quiet" }, finding.names.join(", ")) : null,
    actions, offer ? question(finding, offer) : null);
}

function picture(finding, { name, address }) {
  const kept = finding.keep === name;
  const image = make("img", { src: address, alt: name, title: name, loading: "lazy", onerror: () => image.replaceWith(make("span", { class: "fd-unseen", title: name }, "?")) });
  return make("figure", { class: kept ? "fd-kept" : "" }, image, kept ? make("figcaption", {}, "kept") : null);
}

function rest(finding) {
  const more = finding.count - finding.pictures.length;
  return more > 0 ? make("span", { class: "quiet" }, `and ${more} more`) : null;
}

const isAsked = (finding, offer) => asking?.key === finding.key && asking.fix === offer.fix;

function press(finding, offer) {
  if (offer.fix === "caption") {
    trigger("show", { key: finding.key });
    const panel = document.querySelector("#dataset-captions");
    if (panel && !panel.querySelector("#captioner")) panel.querySelector(".label-wrap")?.click();
    panel?.scrollIntoView({ block: "start" });
    return;
  }
  ask(isAsked(finding, offer) ? null : { key: finding.key, fix: offer.fix });
}

function ask(what) {
  asking = what === asking ? null : what;
  render();
  element.querySelector(".fd-question .fd-main")?.focus();
}

// What will happen, and what there is to choose.
function question(finding, offer) {
  const keep = finding.choices.length ? choice("Keep", finding.choices.map((name) => [name, name]), finding.keep) : null;
  const ground = offer.backgrounds.length ? choice("With", offer.backgrounds, "white") : null;
  const go = () => trigger("fix", { key: finding.key, fix: offer.fix, keep: keep ? keep.lastChild.value : "", background: ground ? ground.lastChild.value : "" });
  return sentences([offer.promise], go, keep, ground);
}

function sentences(promises, go, ...choices) {
  return make("div", { class: "fd-question" }, ...promises.map((promise) => make("p", {}, promise)), make("p", {}, "Undo brings everything back."), ...choices,
    button("Do it", () => { go(); ask(null); }, { class: "fd-main" }), button("Cancel", () => ask(null), { class: "fd-quiet" }));
}

function choice(label, choices, value) {
  const select = make("select", {}, ...choices.map(([key, text]) => make("option", { value: key }, text)));
  select.value = value;
  return make("label", {}, `${label} `, select);
}

function toGrid() {
  document.getElementById("dataset-grid")?.scrollIntoView({ block: "start" });
}

watch("value", receive);
receive();
