// The editor: one picture and its caption. What somebody types is never replaced, and never lost in silence.
const SIDE_BY_SIDE = matchMedia("(min-width: 900px)");
let open = null; // { name, saved, stored }: the picture in the editor and its caption as last saved

const large = make("img", { alt: "", onerror: () => (large.hidden = true), onload: () => (large.hidden = false) });
const fileName = make("strong");
const size = make("span", { class: "quiet" });
const box = make("textarea", { rows: 7, id: "dataset-caption", spellcheck: "true", oninput: typed, onblur: save, onkeydown: boxKey });
const status = make("span", { class: "ds-state", role: "status" });
const words = make("span", { class: "quiet" });
const clash = make("div", { class: "ds-clash", role: "alert", hidden: true });
const hint = make("p", { class: "quiet" }, "Saved when you leave the field, or with Ctrl+Enter. A caption may have several lines.");
const editor = make("aside", { class: "ds-editor", "aria-label": "Caption editor", hidden: true, onkeydown: editorKey },
  make("div", { class: "ds-steps" }, button("‹ Previous", () => step(-1)), button("Next ›", () => step(1)),
    button("Close", closeEditor, { class: "ds-close" })),
  make("div", { class: "ds-picture" }, large, make("p", { class: "ds-broken" }, "This picture cannot be shown.")),
  make("p", { class: "ds-file" }, fileName, " ", size),
  make("label", { for: "dataset-caption" }, "Caption"), box,
  make("p", { class: "ds-line" }, status, words), clash, hint);

function openCard(index, focus = true) {
  const item = view.cards[index];
  if (!item) return;
  save();
  open = { name: item.name, saved: item.caption, stored: item.stored };
  anchor = index;
  editor.hidden = false;
  work.classList.add("ds-editing");
  large.hidden = true;
  large.src = item.picture;
  large.alt = item.name;
  fileName.textContent = item.name;
  size.textContent = item.width ? `${item.width} × ${item.height} px` : "";
  box.value = item.caption;
  clash.hidden = true;
  say("");
  countWords();
  mark();
  if (!SIDE_BY_SIDE.matches) editor.scrollTo(0, 0);
  else if (focus) focusCard(index);
}

function closeEditor() {
  save();
  const index = open && view ? view.cards.findIndex((item) => item.name === open.name) : -1;
  open = null;
  editor.hidden = true;
  work.classList.remove("ds-editing");
  mark();
  if (index >= 0) focusCard(index);
}

function mark() {
  cards().forEach((node) => node.classList.toggle("ds-current", Boolean(open) && node.dataset.name === open.name));
}

function step(by) {
  const index = view.cards.findIndex((item) => item.name === open?.name) + by;
  if (index < 0) turn(-1, "last");
  else if (index >= view.cards.length) turn(1, "first");
  else openCard(index, false);
}

function typed() {
  say(box.value === open.saved ? "" : "Not saved yet");
  countWords();
}

function countWords() {
  const text = box.value.trim();
  const lines = text ? text.split("\n").length : 0;
  const number = text ? text.split(/\s+/).length : 0;
  words.textContent = `${number} ${number === 1 ? "word" : "words"}${lines > 1 ? `, ${lines} lines` : ""}`;
}

function save() {
  if (!open || box.value === open.saved || !clash.hidden) return;
  trigger("save", { name: open.name, before: open.stored, text: box.value, asked });
  open.saved = open.stored = box.value;
  say("Saving …");
}

function say(text) {
  status.textContent = text;
}

// The answer to a save, or captions that changed elsewhere. What somebody is typing is never replaced.
function updateEditor() {
  mark();
  if (view.clash && view.clash.name === open?.name) return showClash(view.clash);
  if (view.saved && view.saved === open?.name && box.value === open.saved) say("Saved");
  const item = open && view.cards.find((other) => other.name === open.name);
  if (!item || view.saved || box.value !== open.saved || item.caption === open.saved) return;
  open.saved = box.value = item.caption;
  open.stored = item.stored;
  countWords();
}

function showClash({ theirs }) {
  say("Not saved");
  clash.replaceChildren(
    make("p", {}, "This caption was changed elsewhere meanwhile. It now reads:"), make("pre", {}, theirs ?? "(no caption)"),
    button("Keep mine", () => settle(box.value, theirs)), button("Take theirs", () => settle(theirs ?? "", theirs)));
  clash.hidden = false;
}

function settle(text, theirs) {
  clash.hidden = true;
  open.stored = theirs;
  open.saved = theirs ?? "";
  box.value = text;
  typed();
  save();
}

function boxKey(event) {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { save(); event.preventDefault(); }
}

function editorKey(event) {
  if (event.key === "Escape") closeEditor();
  else if (event.altKey && event.key === "ArrowRight") step(1);
  else if (event.altKey && event.key === "ArrowLeft") step(-1);
  else return;
  event.preventDefault();
}

addEventListener("beforeunload", (event) => {
  if (!open || box.value === open.saved) return;
  save();
  event.preventDefault();
});
document.addEventListener("visibilitychange", () => document.hidden && save());
