// The grid of pictures: its cards, the mouse and the keys.
const HELP = [
  ["Arrow keys, Home, End", "go from picture to picture"], ["Page Up, Page Down", "turn the page"], ["Enter", "edit the caption"],
  ["Space", "select, or not"], ["Shift + arrow keys", "select a range"], ["Shift + click", "select a range, also over pages"],
  ["Ctrl + click", "select one more"], ["Ctrl + A", "select this page; again: all that match"], ["Ctrl + I", "select the others instead"],
  ["Escape", "clear the selection"], ["/", "search"], ["?", "this list"],
];
const grid = make("div", { class: "ds-grid", role: "listbox", "aria-multiselectable": "true", "aria-label": "Pictures", onkeydown: gridKey });
const nothing = make("p", { class: "ds-nothing", hidden: true }, "No picture matches. ", button("Show all", showAll));
const help = make("dialog", { class: "ds-help", "aria-label": "Keys", onclick: (event) => event.target === help && help.close() },
  make("h3", {}, "Keys in the grid of pictures"),
  make("dl", {}, ...HELP.flatMap(([keys, what]) => [make("dt", {}, keys), make("dd", {}, what)])), button("Close", () => help.close()));

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
    if (open) openCard(target);
    else focusCard(target);
  } else if (focused) {
    focusCard(Math.max(0, view.cards.findIndex((item) => item.name === focused)));
  }
}

function card(item, index) {
  return make("div", { class: "ds-card", role: "option", tabindex: index === 0 ? 0 : -1, "data-name": item.name, "data-thumb": item.thumb,
      "aria-label": item.name, title: item.name,
      onmousedown: (event) => event.shiftKey && event.preventDefault(), // no text is marked on the way
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

function cardClick(event, index) {
  if (event.shiftKey) tickRange(index);
  else if (event.ctrlKey || event.metaKey || event.target.classList.contains("ds-tick")) tick(index);
  else return openCard(index);
  if (!event.shiftKey) anchor = index;
  focusCard(index);
  showTicks();
}

function gridKey(event) {
  const at = cards().indexOf(document.activeElement);
  if (at < 0 || event.altKey) return;
  const top = cards()[0].offsetTop;
  const columns = Math.max(1, cards().findIndex((node) => node.offsetTop > top));
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -at, End: view.cards.length - 1 - at };
  const commands = event.ctrlKey || event.metaKey ? { a: tickMore, i: () => pick("invert") } : {
    PageDown: () => turn(1, "first"), PageUp: () => turn(-1, "first"), " ": () => { tick(at); anchor = at; showTicks(); },
    Enter: () => { openCard(at); box.focus(); }, Escape: tickNone, "/": () => search.focus(), "?": () => help.showModal(),
  };
  if (event.key in moves) moveTo(at + moves[event.key], event.shiftKey);
  else if (event.key in commands) commands[event.key]();
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
