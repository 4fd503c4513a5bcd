// The editor: one picture and its caption, beside the grid or, on small screens, over it.
const SIDE_BY_SIDE = matchMedia("(min-width: 900px)");
let open = null; // { folder, name, picture, saved, stored, saving }: what is in the editor, its caption as last saved, and how many saves are not answered yet

const fileName = make("strong");
const size = make("span", { class: "quiet" });
const editor = make("aside", { class: "ds-editor", "aria-label": "Caption editor", hidden: true, onkeydown: editorKey },
  make("div", { class: "ds-steps" }, button("‹ Previous", () => step(-1)), button("Next ›", () => step(1)),
    button("Close", closeEditor, { class: "ds-close" })),
  make("div", { class: "ds-picture" }, frame, make("p", { class: "ds-broken" }, "This picture cannot be shown.")),
  make("p", { class: "ds-file" }, fileName, " ", size), tools, trained,
  make("label", { for: "dataset-caption" }, "Caption"), box,
  make("p", { class: "ds-line" }, status, words, meter), unread, stored, clash, chips, hint);

function openCard(index, focus = true) {
  const item = view.cards[index];
  if (!item) return;
  save();
  open = { folder: view.folder, name: item.name, picture: item.picture, saved: item.caption, stored: item.stored, saving: 0 };
  anchor = index;
  editor.hidden = false;
  work.classList.add("ds-editing");
  stored.hidden = true;
  showFile(item);
  showCaption(item.caption);
  askFacts();
  mark();
  if (!SIDE_BY_SIDE.matches) editor.scrollTo(0, 0);
  else if (focus) focusCard(index);
}

function showFile(item) {
  fileName.textContent = item.name;
  size.textContent = item.width ? `${item.width} × ${item.height} px` : "";
  showPicture(item);
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

// What the server sent may be about the open picture.
function updateEditor(saved) {
  mark();
  showKnownTags();
  if (!open) return;
  const item = view.cards.find(({ name }) => name === open.name);
  if (item && item.picture !== open.picture) { // its address changes with the file
    open.picture = item.picture;
    showFile(item);
  }
  if (!saved) updateCaption();
  askFacts();
  if (!onStage || onStage.name !== open.name) return;
  if (view.refused?.name === open.name) onStage.tool.refused(view.refused.problem);
  if (view.done === open.name) {
    onStage.tool.done();
    leaveStage();
  }
}

function editorKey(event) {
  if (event.key === "Escape") closeEditor();
  else if (event.altKey && event.key === "ArrowRight") step(1);
  else if (event.altKey && event.key === "ArrowLeft") step(-1);
  else return;
  event.preventDefault();
}
