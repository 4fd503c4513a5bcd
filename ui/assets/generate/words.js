// Trigger words and tags of the chosen LoRAs: a press puts one into the prompt, another takes it out. Runs after dom.js.
const prompt = () => document.querySelector("#generate-prompt textarea");
const box = make("div", { hidden: true });
element.replaceChildren(box);
let unfolded = false;

function receive() {
  const loras = JSON.parse(props.value?.loras ?? "[]");
  box.hidden = loras.length === 0;
  box.replaceChildren(...loras.map(({ name, words, tags }) => make("section", { "aria-label": `Words of ${name}` },
    make("h4", {}, words.length ? `Trigger words of ${name}` : `Words that ${name} knows`),
    make("div", { class: "chips" }, ...words.map(([word, why]) => chip(word, why))), tagList(tags, words.length > 0))));
  mark();
}

function tagList(tags, folded) {
  if (!tags.length) return null;
  const chips = make("div", { class: "chips" }, ...tags.map(([tag, count]) => chip(tag, `${count} pictures it was trained on have it`, count)));
  if (!folded) return chips;
  const fold = make("details", { open: unfolded, ontoggle: () => (unfolded = fold.open) }, make("summary", {}, "Frequent tags"), chips);
  return fold;
}

const chip = (word, why, count) => make("button", { type: "button", title: why, "data-word": word, "aria-pressed": "false", onclick: () => toggle(word) },
  word, count ? make("small", {}, String(count)) : null);
const partsOf = (text) => text.split(",").map((part) => part.trim()).filter(Boolean);
const lower = (text) => partsOf(text).map((part) => part.toLowerCase());
const has = (word) => lower(word).every((part) => lower(prompt()?.value ?? "").includes(part));

function toggle(word) {
  const field = prompt();
  const others = partsOf(field.value).filter((part) => !lower(word).includes(part.toLowerCase()));
  field.value = (has(word) ? others : [...others, word]).join(", ");
  field.dispatchEvent(new Event("input", { bubbles: true }));
  mark();
}

function mark() {
  box.querySelectorAll("[data-word]").forEach((node) => node.setAttribute("aria-pressed", String(has(node.dataset.word))));
}

document.addEventListener("input", (event) => event.target === prompt() && mark());
watch("value", receive);
receive();
