// The table of all tags: search, sort, pages, click to filter, and operations on ticked ones. Runs inside gr.HTML, after dom.js.
const asked = { search: "", sort: "count", least: 1, near: false, page: 0 };
const ticked = new Set(); // tags, on any page
let table = null; // { folder, version, rows, ... }: a page of tags as the server last sent it
let old = true; // whether what is shown is not how the dataset is
let waiting = 0; // pause while somebody types

const search = make("input", { type: "search", placeholder: "Find a tag", "aria-label": "Find a tag", oninput: () => soon() });
const sort = make("select", { "aria-label": "Order of tags", onchange: () => list(0) },
  make("option", { value: "count" }, "Most frequent first"), make("option", { value: "rare" }, "Rarest first"),
  make("option", { value: "name" }, "A to Z"), make("option", { value: "newest" }, "Newest first"));
const least = make("input", { type: "number", min: 1, value: 1, "aria-label": "Seen at least", oninput: () => soon() });
const near = make("input", { type: "checkbox", onchange: () => list(0) });
const bar = make("div", { class: "tag-bar" }, search, sort, make("label", { class: "least" }, "Seen at least ", least, " times"),
  make("label", {}, near, " Only those that look like another"));
const count = make("p", { class: "quiet", role: "status" });
const rows = make("tbody");
const all = make("input", { type: "checkbox", "aria-label": "Tick all on this page", onchange: () => tickAll(all.checked) });
const grid = make("table", {}, make("thead", {}, make("tr", {}, make("th", {}, all), make("th", {}, "Tag"), make("th", { class: "number" }, "Captions"), make("th", {}, "Looks like"))), rows);
const where = make("span");
const back = button("‹ Previous", () => list(table.page - 1));
const forth = button("Next ›", () => list(table.page + 1));
const pager = make("nav", { "aria-label": "Pages of tags" }, back, where, forth);
const target = make("input", { type: "text", placeholder: "New name", "aria-label": "New name", oninput: showDeeds });
const chosen = make("strong");
const deeds = { rename: button("Rename", () => act("rename", target.value)), remove: button("Remove", () => act("remove")),
  first: button("Move first", () => act("first")), none: button("Untick all", () => { ticked.clear(); showTicks(); }) };
const tools = make("div", { class: "tag-bar tag-tools" }, chosen, target, ...Object.values(deeds));
const scroll = make("div", { class: "tag-rows" }, grid);
element.replaceChildren(bar, count, tools, scroll, pager);

function soon() {
  clearTimeout(waiting);
  waiting = setTimeout(() => list(0), 300);
}

function list(page) {
  old = false;
  Object.assign(asked, { search: search.value, sort: sort.value, least: Number(least.value) || 1, near: near.checked, page });
  trigger("list", { ...asked });
}

function act(deed, to = "") {
  trigger("retag", { deed, tags: [...ticked], to });
  ticked.clear();
  target.value = "";
}

function receive() {
  const sent = props.value || {};
  if (!sent.folder) return;
  if (table && table.folder !== sent.folder) ticked.clear();
  if (!sent.rows) return isOld(sent);
  table = sent;
  count.textContent = sent.total === 0 ? "No captions yet, so there are no tags."
    : `${sent.matching === sent.total ? "" : `${sent.matching} of `}${sent.total} tags${sent.alike ? `, ${sent.alike} look like another` : ""}`;
  rows.replaceChildren(...sent.rows.map(row));
  grid.hidden = sent.rows.length === 0;
  pager.hidden = sent.pages < 2;
  where.textContent = `${sent.page + 1} of ${sent.pages}`;
  back.disabled = sent.page === 0;
  forth.disabled = sent.page >= sent.pages - 1;
  showTicks();
}

// The dataset is another one, or was changed: ask for its tags, as soon as somebody looks.
function isOld({ folder, version }) {
  old = table === null || table.folder !== folder || table.version !== version;
  if (old && element.offsetParent) list(table?.folder === folder ? table.page : 0);
}

new IntersectionObserver(([seen]) => seen.isIntersecting && old && list(0)).observe(element);

function row([tag, number, other]) {
  const tick = make("input", { type: "checkbox", "aria-label": `Tick ${tag}`, onchange: () => { ticked[tick.checked ? "add" : "delete"](tag); showTicks(); } });
  const merge = other === null ? null : button(`Merge into ${other}`, () => trigger("retag", { deed: "rename", tags: [tag], to: other }));
  return make("tr", { "data-tag": tag }, make("td", {}, tick),
    make("td", {}, button(tag, () => trigger("show", { tag }), { class: "tag", title: "Show the pictures with this tag" })),
    make("td", { class: "number" }, String(number)), make("td", {}, merge));
}

function tickAll(on) {
  table.rows.forEach(([tag]) => ticked[on ? "add" : "delete"](tag));
  showTicks();
}

function showTicks() {
  for (const node of rows.children) node.querySelector("input").checked = ticked.has(node.dataset.tag);
  all.checked = rows.children.length > 0 && [...rows.children].every((node) => ticked.has(node.dataset.tag));
  showDeeds();
}

function showDeeds() {
  tools.hidden = ticked.size === 0;
  const few = [...ticked].slice(0, 3).join(", ");
  chosen.textContent = `${ticked.size} ticked: ${few}${ticked.size > 3 ? " ..." : ""}`;
  deeds.rename.textContent = ticked.size > 1 ? "Merge into this name" : "Rename";
  deeds.rename.disabled = !target.value.trim();
}

watch("value", receive);
receive();
