// The picture grid and the caption editor. Runs inside gr.HTML, which gives `element`, `props`, `trigger`, `watch`.
// Names and captions come from files: they are only ever put in as text, never as HTML.
const SIDE_BY_SIDE = matchMedia("(min-width: 900px)");
const chosen = new Set(); // names of ticked pictures, on any page
let view = null; // the page of pictures as the server last sent it
let open = null; // { name, saved, stored }: the picture in the editor and its caption as last saved
let anchor = 0; // where a selection with Shift starts
let afterTurn = null; // "first" or "last": which picture to open when the asked page arrives
let asked = 0; // number of the last page asked for; an older answer must not undo it
let waiting = 0; // pause while somebody types in the search field

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);

/* The parts, made once */
const title = make("h2", { class: "ds-title" });
const counts = make("span", { class: "ds-counts" });
const search = make("input", { type: "search", placeholder: "Search captions and names", "aria-label": "Search", oninput: searchSoon });
const show = make("select", { "aria-label": "Show", onchange: () => ask(0) });
const tagChip = button("", () => { query.tag = ""; ask(0); }, { class: "ds-chip ds-on", hidden: true });
const ticked = make("span", { class: "ds-ticked", role: "status" });
const tickAll = button("Select this page", tickPage);
const tickNone = button("Clear selection", () => { chosen.clear(); showTicks(); });
const grid = make("div", { class: "ds-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Pictures", onkeydown: gridKey });
const nothing = make("p", { class: "ds-nothing", hidden: true }, "No picture matches. ", button("Show all", showAll));
const back = button("‹ Previous page", () => turn(-1));
const forth = button("Next page ›", () => turn(1));
const where = make("span", { "aria-live": "polite" });
const tagList = make("div", { class: "ds-tag-list" });
const tagSearch = make("input", { type: "search", placeholder: "Find a tag", "aria-label": "Find a tag", oninput: showTags });
const tagTitle = make("summary");
const tags = make("details", { class: "ds-tags" }, tagTitle, tagSearch, tagList);

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
const query = { text: "", show: "all", tag: "" };
const start = make("div", { class: "ds-start" }, make("h2", {}, "No pictures open yet"),
  make("p", {}, "Open a folder, add pictures of your own, or take the example above. 15 to 40 pictures of one thing or style make a good start."));
const work = make("div", { class: "ds-work", hidden: true },
  make("header", {}, title, counts),
  make("div", { class: "ds-bar" }, search, show, tagChip, ticked, tickAll, tickNone),
  make("div", { class: "ds-columns" },
    make("div", {}, nothing, grid, make("nav", { class: "ds-pager", "aria-label": "Pages" }, back, where, forth), tags), editor));
element.replaceChildren(start, work);

/* Asking the server for pictures */
function ask(page) {
  save();
  Object.assign(query, { text: search.value, show: show.value || "all" });
  asked += 1;
  grid.setAttribute("aria-busy", "true");
  trigger("turn", { page, ...query, asked });
}

function searchSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => ask(0), 300);
}

function showAll() {
  search.value = "";
  show.value = "all";
  query.tag = "";
  ask(0);
}

function turn(by, then = null) {
  const page = view.page + by;
  if (page < 0 || page >= view.pages) return;
  afterTurn = then;
  ask(page);
}

/* What the server sends */
function receive() {
  const sent = props.value;
  if (!sent || (Number.isInteger(sent.asked) && sent.asked < asked)) return;
  const otherFolder = !view || view.folder !== sent.folder;
  view = sent;
  if (otherFolder) forgetFolder();
  start.hidden = Boolean(view.folder);
  work.hidden = !view.folder;
  if (!view.folder) return;
  title.textContent = view.title;
  title.title = view.folder;
  const rest = view.total - view.captioned;
  counts.textContent = `${view.total} pictures, ${rest === 0 ? "all with a caption" : `${rest} without a caption`}`;
  showQuery();
  showGrid();
  showTags();
  showTicks();
  updateEditor();
}

function forgetFolder() {
  chosen.clear();
  closeEditor();
  search.value = "";
  anchor = 0;
}

function showQuery() {
  Object.assign(query, view.query);
  if (document.activeElement !== search) search.value = query.text;
  show.replaceChildren(...view.shows.map(([value, label]) => make("option", { value }, label)));
  show.value = query.show;
  tagChip.hidden = !query.tag;
  tagChip.textContent = `Tag: ${query.tag}  ×`;
}

function showGrid() {
  const focused = grid.contains(document.activeElement) ? document.activeElement.dataset.name : null;
  grid.removeAttribute("aria-busy");
  const same = cards().length === view.cards.length && cards().every((node, index) => node.dataset.thumb === view.cards[index].thumb);
  if (same) cards().forEach((node, index) => setText(node.querySelector(".ds-text"), view.cards[index]));
  else grid.replaceChildren(...view.cards.map(card));
  nothing.hidden = view.cards.length > 0;
  grid.hidden = view.cards.length === 0;
  where.textContent = view.matching === 0 ? "" : `${view.first + 1} to ${view.first + view.cards.length} of ${view.matching}`;
  back.disabled = view.page === 0;
  forth.disabled = view.page >= view.pages - 1;
  back.parentElement.hidden = view.pages < 2;
  if (afterTurn) {
    const target = afterTurn === "last" ? view.cards.length - 1 : 0;
    afterTurn = null;
    openCard(target);
  } else if (focused) {
    focusCard(Math.max(0, view.cards.findIndex((item) => item.name === focused)));
  }
}

function card(item, index) {
  return make("div", { class: "ds-card", role: "option", tabindex: index === 0 ? 0 : -1, "data-name": item.name, "data-thumb": item.thumb,
      "aria-label": item.name,
      onclick: (event) => cardClick(event, index) },
    make("span", { class: "ds-tick", "aria-hidden": "true" }),
    make("img", { src: item.thumb, alt: "", loading: "lazy", onerror: (event) => event.target.replaceWith(make("span", { class: "ds-unseen" }, "cannot be shown")) }),
    setText(make("span"), item));
}

function setText(node, item) {
  const text = item.caption.trim();
  node.className = text ? "ds-text" : "ds-text ds-none";
  node.textContent = text || "No caption yet";
  return node;
}

const cards = () => [...grid.children];

/* Ticking pictures */
function tick(index, on = !chosen.has(view.cards[index].name)) {
  chosen[on ? "add" : "delete"](view.cards[index].name);
}

function tickRange(to) {
  for (let index = Math.min(anchor, to); index <= Math.max(anchor, to); index += 1) tick(index, true);
}

function tickPage() {
  view.cards.forEach((_, index) => tick(index, true));
  showTicks();
}

function showTicks() {
  cards().forEach((node) => node.setAttribute("aria-selected", chosen.has(node.dataset.name)));
  ticked.textContent = chosen.size ? `${chosen.size} selected` : "";
  tickNone.hidden = chosen.size === 0;
  props.value = { ...view, selected: [...chosen] }; // what Python gets with the next event
}

/* Mouse and keys in the grid */
function cardClick(event, index) {
  if (event.shiftKey) tickRange(index);
  else if (event.ctrlKey || event.metaKey || event.target.classList.contains("ds-tick")) tick(index);
  else return openCard(index);
  anchor = index;
  focusCard(index);
  showTicks();
}

function gridKey(event) {
  const at = cards().indexOf(document.activeElement);
  if (at < 0) return;
  const top = cards()[0].offsetTop;
  const columns = Math.max(1, cards().findIndex((node) => node.offsetTop > top));
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: view.cards.length - 1 - at };
  if (event.key in moves) moveTo(at + moves[event.key], event.shiftKey);
  else if (event.key === "PageDown") turn(1, "first");
  else if (event.key === "PageUp") turn(-1, "first");
  else if (event.key === " ") { tick(at); anchor = at; showTicks(); }
  else if (event.key === "Enter") { openCard(at); box.focus(); }
  else if (event.key === "a" && (event.ctrlKey || event.metaKey)) tickPage();
  else return;
  event.preventDefault();
}

function moveTo(index, selecting) {
  if (index < 0 || index >= view.cards.length) return;
  if (selecting) { tickRange(index); showTicks(); } else anchor = index;
  focusCard(index);
  if (open) openCard(index, false);
}

function focusCard(index) {
  cards().forEach((node, number) => node.setAttribute("tabindex", number === index ? 0 : -1));
  cards()[index]?.focus();
}

/* The editor */
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

/* Tags */
function showTags() {
  const wanted = tagSearch.value.trim().toLowerCase();
  tagTitle.textContent = `Tags (${view.tags.length})`;
  const found = view.tags.filter(([tag]) => tag.toLowerCase().includes(wanted));
  tagList.replaceChildren(...found.map(([tag, count]) =>
    button("", () => { query.tag = query.tag === tag ? "" : tag; ask(0); }, { class: tag === query.tag ? "ds-chip ds-on" : "ds-chip", "aria-pressed": tag === query.tag })));
  [...tagList.children].forEach((node, index) => node.append(found[index][0], make("span", { class: "ds-number" }, String(found[index][1]))));
}

addEventListener("beforeunload", (event) => {
  if (!open || box.value === open.saved) return;
  save();
  event.preventDefault();
});
document.addEventListener("visibilitychange", () => document.hidden && save());
watch("value", receive);
receive();
