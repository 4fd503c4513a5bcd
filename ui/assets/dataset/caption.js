// The caption of the open picture: its text, saving it, and how much of it the text encoder reads.
// What somebody types is never replaced, and never lost in silence.
const COUNT_AFTER_MS = 250;
let counting = 0; // pause while somebody types, before tokens are counted
let counted = null; // { text, whose, limits, limit, first_only, lines }: the server's count of this text

const box = make("textarea", { rows: 6, id: "dataset-caption", spellcheck: "true", oninput: typed, onblur: save, onkeydown: boxKey });
const status = make("span", { class: "ds-state", role: "status" });
const words = make("span", { class: "quiet" });
const limitChoice = make("select", { class: "ds-limit", "aria-label": "Caption length", title: "How many tokens training reads: Caption length on the Train tab", onchange: showCount });
const meter = make("span", { class: "ds-meter", hidden: true }, make("strong"), " of ", limitChoice, " tokens");
const unread = make("p", { class: "ds-not-read", hidden: true });
const stored = make("p", { class: "ds-note", hidden: true });
const clash = make("div", { class: "ds-clash", role: "alert", hidden: true });
const hint = make("p", { class: "quiet" }, "Saved when you leave the field, or with Ctrl+Enter. A caption may have several lines.");

function showCaption(text) {
  box.value = text;
  clash.hidden = true;
  counted = null;
  say("");
  wrote();
}

function typed() {
  say(box.value === open.saved ? "" : "Not saved yet");
  wrote();
}

// Everything that shows the text again: the chips at once, the count of tokens when somebody pauses.
function wrote() {
  const text = box.value.trim();
  const lines = text ? text.split("\n").length : 0;
  const number = text ? text.split(/\s+/).length : 0;
  words.textContent = `${number} ${number === 1 ? "word" : "words"}${lines > 1 ? `, ${lines} lines` : ""}`;
  showChips();
  clearTimeout(counting);
  counting = setTimeout(countTokens, counted ? COUNT_AFTER_MS : 0);
}

async function countTokens() {
  const text = box.value;
  const answer = await server.count_tokens({ text }).catch(() => null);
  if (!answer || answer.problem || text !== box.value) return;
  if (!counted) limitChoice.replaceChildren(...answer.limits.map((limit) => make("option", { value: limit, selected: limit === answer.limit }, String(limit))));
  counted = { text, ...answer };
  showCount();
}

// The first character of a line that is not read; the server counts whole characters, not UTF-16 units.
function cutOf(line) {
  if (!counted || counted.text !== box.value) return null;
  const cut = counted.lines[line]?.cuts[counted.limits.indexOf(Number(limitChoice.value))];
  return cut == null ? null : [...box.value.split("\n")[line]].slice(0, cut).join("").length;
}

function showCount() {
  const most = Math.max(...counted.lines.map((line) => line.tokens));
  const over = most > Number(limitChoice.value);
  meter.hidden = false;
  meter.classList.toggle("ds-over", over);
  meter.firstChild.textContent = `${counted.whose ? "" : "about "}${most}`;
  meter.title = counted.whose ? `Counted with the vocabulary of ${counted.whose}.` : "Estimated: the model's tokenizer cannot be read here.";
  showUnread(over);
  markUnreadChips();
}

function showUnread(over) {
  const lines = box.value.split("\n");
  const tails = lines.map((line, index) => (cutOf(index) == null ? "" : line.slice(cutOf(index)))).filter((tail) => tail.trim());
  const shortened = counted.first_only && box.value.trim().includes("\n");
  unread.hidden = !over && !shortened;
  const told = [];
  if (tails.length) told.push("Not read: ", ...tails.flatMap((tail) => [make("mark", {}, tail.trim()), " "]));
  else if (over) told.push("Probably too long: the end is not read. ");
  if (shortened) told.push("Training reads the first line only; with wildcards (Train tab, Captions) it picks one of the lines each time.");
  unread.replaceChildren(...told);
}

function save() {
  if (!open || box.value === open.saved || !clash.hidden) return;
  trigger("save", { folder: open.folder, name: open.name, before: open.stored, text: box.value, asked });
  open.saved = open.stored = box.value;
  open.saving += 1;
  stored.hidden = true;
  say("Saving …");
}

function say(text) {
  status.textContent = text;
}

// How the file is stored, where saving it would change that.
function showStored({ encoding }) {
  stored.hidden = !encoding;
  stored.textContent = `The file's encoding: ${encoding}. Saving makes it UTF-8; look at the letters first.`;
}

// Takes the answer to a save, however late it is; whether it is about what is in the editor. What was typed into a
// picture that is no longer there is told where it was not saved.
function answered({ folder, saved, clash }) {
  const mine = Boolean(open?.saving) && open.folder === folder && [clash?.name, saved].includes(open.name);
  if (mine) open.saving -= 1;
  if (mine && clash) showClash(clash);
  else if (clash) trigger("unsaved", { name: clash.name, text: clash.mine });
  else if (mine && box.value === open.saved) say("Saved");
  return mine;
}

// Captions that changed elsewhere. Until a save is answered, or a clash is settled, what was typed stands nowhere else:
// nothing replaces it. There may be several: what came after the first save is newer.
function updateCaption() {
  const item = view.cards.find((other) => other.name === open.name);
  if (!item || open.saving || !clash.hidden || box.value !== open.saved || item.caption === open.saved) return;
  open.saved = item.caption;
  open.stored = item.stored;
  showCaption(item.caption);
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

addEventListener("beforeunload", (event) => {
  if (!open || box.value === open.saved) return;
  save();
  event.preventDefault();
});
document.addEventListener("visibilitychange", () => document.hidden && save());
