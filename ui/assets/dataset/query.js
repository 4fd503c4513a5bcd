// Which pictures are shown: search, filter and tag, pages, and asking the server for them.
const query = { text: "", show: "all", tag: "" };
let view = null; // the page of pictures as the server last sent it
let afterTurn = null; // "first" or "last": which picture to open when the asked page arrives
let asked = 0; // number of the last page asked for; an older answer must not undo it
let waiting = 0; // pause while somebody types in the search field

const search = make("input", { type: "search", placeholder: "Search captions and names", "aria-label": "Search", oninput: searchSoon });
const show = make("select", { "aria-label": "Show", onchange: () => ask(0) });
const tagChip = button("", () => { query.tag = ""; ask(0); }, { class: "ds-chip ds-on", hidden: true });
const back = button("‹ Previous page", () => turn(-1));
const forth = button("Next page ›", () => turn(1));
const where = make("span", { "aria-live": "polite" });

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

function showQuery() {
  Object.assign(query, view.query);
  if (document.activeElement !== search) search.value = query.text;
  show.replaceChildren(...view.shows.map(([value, label]) => make("option", { value }, label)));
  show.value = query.show;
  tagChip.hidden = !query.tag;
  tagChip.textContent = `Tag: ${query.tag}  ×`;
}
