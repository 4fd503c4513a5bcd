// The grid of pictures: cards, ticking them, mouse and keys.
const chosen = new Set(); // names of ticked pictures, on any page
let anchor = 0; // where a selection with Shift starts

const ticked = make("span", { class: "ds-ticked", role: "status" });
const tickAll = button("Select this page", tickPage);
const tickNone = button("Clear selection", () => { chosen.clear(); showTicks(); });
const grid = make("div", { class: "ds-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Pictures", onkeydown: gridKey });
const nothing = make("p", { class: "ds-nothing", hidden: true }, "No picture matches. ", button("Show all", showAll));

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
