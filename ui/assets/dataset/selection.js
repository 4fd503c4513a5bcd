// Which pictures are ticked. They stay so when the page is turned, and when a filter hides them.
const me = Math.random().toString(36).slice(2); // this open page: tells its own changes from those of another window
const chosen = new Set(); // names, on any page
let anchor = 0; // where a range starts: a place on this page, or before or behind it on another

const ticked = make("span", { class: "ds-ticked", role: "status" });
const hiddenTicks = make("span", { class: "ds-hidden-ticks", hidden: true });
const tickPageButton = button("Select this page", tickPage);
const tickAllButton = button("", () => pick("all"));
const tickOthers = button("Invert", () => pick("invert"), { title: "Select the others instead (Ctrl + I)" });
const tickNoneButton = button("Clear selection", tickNone);
const selectionBar = make("div", { class: "ds-bar ds-selection" }, ticked, hiddenTicks, tickPageButton, tickAllButton, tickOthers, tickNoneButton,
  button("Keys", () => help.showModal(), { class: "ds-keys", title: "Keys in the grid of pictures (?)" }));

function tick(index, on = !chosen.has(view.cards[index].name)) {
  chosen[on ? "add" : "delete"](view.cards[index].name);
}

function tickRange(to) {
  if (anchor < 0 || anchor >= view.cards.length) return pick("range", view.first + anchor, view.first + to);
  for (let index = Math.min(anchor, to); index <= Math.max(anchor, to); index += 1) tick(index, true);
}

function tickPage() {
  view.cards.forEach((_, index) => tick(index, true));
  showTicks();
}

function tickMore() { // the page; once that is ticked, all pages
  if (view.cards.every(({ name }) => chosen.has(name))) pick("all");
  else tickPage();
}

function tickNone() {
  chosen.clear();
  view.hidden = 0;
  showTicks();
}

function pick(how, start = 0, end = 0) { // over all pages: the server knows what is on them
  trigger("pick", { how, start, end, asked });
}

// What the server said of ticks: those picked over all pages, and those whose pictures are gone.
function takeTicks() {
  if (view.picked) {
    chosen.clear();
    JSON.parse(view.picked).forEach((name) => chosen.add(name));
  }
  view.gone.forEach((name) => chosen.delete(name));
  showTicks();
}

function showTicks() {
  cards().forEach((node) => node.setAttribute("aria-selected", chosen.has(node.dataset.name)));
  ticked.textContent = chosen.size ? `${chosen.size} selected` : "None selected";
  hiddenTicks.textContent = `${view.hidden} of them hidden by the filter`;
  hiddenTicks.hidden = view.hidden === 0;
  tickPageButton.hidden = view.pages < 2;
  tickAllButton.textContent = `Select all ${view.matching}`;
  tickAllButton.hidden = view.matching === 0;
  tickOthers.hidden = tickNoneButton.hidden = chosen.size === 0;
  sendAlong();
}

// What Python gets with the next event. Of the ticks as one text: a list would be observed name by name.
function sendAlong() {
  const { folder, offered } = view;
  props.value = { folder, page: pageAsked, query: { ...query }, offered, asked, window: me, ticked: JSON.stringify([...chosen]) };
}
