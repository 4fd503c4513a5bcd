// Putting the parts together, and what the server sends.
const title = make("h2", { class: "ds-title" });
const counts = make("span", { class: "ds-counts" });
const start = make("div", { class: "ds-start" }, make("h2", {}, "No pictures open yet"),
  make("p", {}, "Open a folder, add pictures of your own, or take the example above. 15 to 40 pictures of one thing or style make a good start."));
const work = make("div", { class: "ds-work", hidden: true },
  make("header", {}, title, counts),
  make("div", { class: "ds-bar" }, search, show, tagChip, ticked, tickAll, tickNone),
  make("div", { class: "ds-columns" },
    make("div", {}, nothing, grid, make("nav", { class: "ds-pager", "aria-label": "Pages" }, back, where, forth), tags), editor));
element.replaceChildren(start, work);

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

watch("value", receive);
receive();
