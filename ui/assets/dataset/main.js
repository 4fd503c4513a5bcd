// Putting the parts together, and what the server sends.
const title = make("h2", { class: "ds-title" });
const counts = make("span", { class: "ds-counts" });
const start = make("div", { class: "ds-start" }, make("h2", {}, "No pictures open yet"),
  make("p", {}, "Open a folder, add pictures of your own, or choose those of the demo under Your datasets. 15 to 40 pictures of one thing or style make a good start."));
const work = make("div", { class: "ds-work", hidden: true },
  make("header", {}, title, counts),
  make("div", { class: "ds-bar" }, search, show, more), moreFields, filterChips, selectionBar,
  make("div", { class: "ds-columns" },
    make("div", {}, nothing, grid, make("nav", { class: "ds-pager", "aria-label": "Pages" }, back, where, forth)), editor), help);
element.replaceChildren(start, work, stage);

function receive() {
  const sent = props.value;
  if (!sent?.cards) return;
  const mine = answered(sent);
  const strange = view && sent.folder !== view.folder && !sent.opened; // asked for before another dataset was opened
  if (strange || (Number.isInteger(sent.asked) && sent.asked < asked)) {
    sendAlong();
    if (strange) trigger("refresh"); // it was shown in other parts, too
    return;
  }
  const before = view && view.folder === sent.folder ? view : null;
  const kept = before && before.offered === sent.offered ? { ...before, clash: null, saved: null, picked: null, done: null, refused: null } : {};
  if (before && sameQuery(before.query, sent.query)) anchor -= sent.first - before.first;
  else anchor = 0;
  view = { ...kept, ...sent };
  if (!before) forgetFolder();
  start.hidden = Boolean(view.folder);
  work.hidden = !view.folder;
  if (!view.folder) return;
  title.textContent = view.title;
  title.title = view.folder;
  const rest = view.total - view.captioned;
  const pictures = view.total === 1 ? "1 picture" : `${view.total} pictures`;
  counts.textContent = `${pictures}, ${rest === 0 ? (view.total === 1 ? "with a caption" : "all with a caption") : `${rest} without a caption`}`;
  showQuery();
  showGrid();
  takeTicks();
  updateEditor(mine);
}

function sameQuery(one, other) {
  return JSON.stringify({ ...one, per_page: 0 }) === JSON.stringify({ ...other, per_page: 0 });
}

function forgetFolder() {
  chosen.clear();
  closeEditor();
  search.value = "";
  anchor = 0;
}

watch("value", receive);
receive();
