// All pictures of the workspace: pages, search, favourites, selection. Runs inside gr.HTML, after dom.js and viewer.js.
const PER_PAGE = 60;
const query = { text: "", favourites: false, first: 0 };
const chosen = new Set(); // names, on any page
let view = { cards: [], found: 0, total: 0, first: 0 }; // the page as the server last told it
let asked = 0; // an older answer must not undo a newer one
let anchor = 0; // where a range of ticks starts
let results = null; // pictures of the last request, while the viewer goes through them

const search = make("input", { type: "search", placeholder: "Prompt, LoRA, model, seed …", "aria-label": "Search pictures", oninput: () => findSoon() });
const onlyStars = make("input", { type: "checkbox", onchange: () => find() });
const starCount = make("span");
const told = make("span", { class: "quiet", role: "status" });
const bar = make("div", { class: "chosen", hidden: true });
const undo = make("div", { class: "chosen", role: "status", hidden: true });
const wall = make("div", { class: "wall", onkeydown: wallKey });
const nothing = make("p", { class: "quiet", hidden: true });
const where = make("span", { class: "quiet" });
const back = button("‹ Newer", () => turn(-1));
const forth = button("Older ›", () => turn(1));
const pager = make("nav", { class: "pager", "aria-label": "Pages of pictures" }, back, where, forth);
const viewer = pictureViewer(neighbour, { use, star: (card) => star([card.name], !card.star), discard: (card) => discard([card.name]) });
const work = make("section", { hidden: true, "aria-label": "Earlier pictures" },
  make("header", {}, make("h3", {}, "Earlier pictures"), told),
  make("div", { class: "find" }, search, make("label", {}, onlyStars, starCount)), bar, undo, wall, nothing, pager);
element.prepend(work);

async function ask() {
  const turn = ++asked;
  const answer = await server.pictures({ ...query, count: PER_PAGE }).catch(() => null);
  if (!answer || turn !== asked) return;
  view = JSON.parse(answer.page);
  query.first = view.first;
  render();
}

let soon = 0;
function findSoon() {
  clearTimeout(soon);
  soon = setTimeout(find, 200);
}

function find() {
  Object.assign(query, { text: search.value, favourites: onlyStars.checked, first: 0 });
  return ask();
}

function turn(by) {
  query.first = Math.max(0, query.first + by * PER_PAGE);
  return ask();
}

function render() {
  const focused = element.getRootNode().activeElement?.closest?.(".card")?.dataset.name;
  work.hidden = view.total === 0;
  const kept = new Map([...wall.children].map((node) => [node.dataset.key, node]));
  wall.replaceChildren(...view.cards.map((card, index) => kept.get(keyOf(card)) ?? cardNode(card, index)));
  [...wall.children].forEach((node, index) => refreshCard(node, view.cards[index]));
  if (focused) focusCard(view.cards.findIndex(({ name }) => name === focused));
  starCount.textContent = `Favourites (${view.favourites})`;
  const reading = view.unread ? `, ${view.unread} more are being read` : "";
  told.textContent = query.text || query.favourites ? `${view.found} of ${view.total}${reading}` : `${view.total}${reading}`;
  nothing.hidden = view.cards.length > 0;
  nothing.textContent = query.favourites && !query.text ? "No favourites yet: press F on a picture, or its star." : "No picture matches.";
  where.textContent = `${view.first + 1} to ${view.first + view.cards.length} of ${view.found}`;
  pager.hidden = view.found <= PER_PAGE;
  back.disabled = view.first === 0;
  forth.disabled = view.first + PER_PAGE >= view.found;
  if (viewer.shown()) viewer.show(fresh(viewer.shown()));
  showChosen();
}

const keyOf = (card) => `${card.name} ${card.url}`;

function cardNode(card) {
  const node = make("div", { class: "card", "data-name": card.name, "data-key": keyOf(card) },
    make("button", { type: "button", class: "open", "data-large": card.url, "aria-label": card.words, title: card.words, onclick: (event) => pressed(event, indexOf(node)) },
      make("img", { src: card.small, alt: "", loading: "lazy", decoding: "async" })),
    make("label", { class: "tick", onclick: (event) => { if (event.shiftKey) { event.preventDefault(); tickRange(indexOf(node)); } } },
      make("input", { type: "checkbox", "aria-label": `Select ${card.name}`, onchange: (event) => tick(indexOf(node), event.target.checked) })),
    make("button", { type: "button", class: "star", onclick: () => { const now = view.cards[indexOf(node)]; star([now.name], !now.star); } }));
  return node;
}

function refreshCard(node, card) {
  const mark = node.querySelector(".star");
  node.classList.toggle("starred", card.star);
  node.querySelector("input").checked = chosen.has(card.name);
  mark.textContent = card.star ? "★" : "☆";
  mark.setAttribute("aria-label", `Favourite ${card.name}`);
  mark.setAttribute("aria-pressed", String(card.star));
}

const indexOf = (node) => [...wall.children].indexOf(node);
const fresh = (card) => view.cards.find(({ name }) => name === card.name) ?? card;

/* Selection */
function pressed(event, index) {
  if (event.shiftKey) return tickRange(index);
  if (event.ctrlKey || event.metaKey) return tick(index, !chosen.has(view.cards[index].name));
  results = null;
  viewer.show(view.cards[index]);
}

function tick(index, on) {
  chosen[on ? "add" : "delete"](view.cards[index].name);
  anchor = index;
  showChosen();
}

function tickRange(to) {
  for (let index = Math.min(anchor, to); index <= Math.max(anchor, to); index += 1) chosen.add(view.cards[index]?.name);
  showChosen();
}

function showChosen() {
  chosen.delete(undefined);
  [...wall.children].forEach((node, index) => { node.querySelector("input").checked = chosen.has(view.cards[index]?.name); });
  wall.classList.toggle("choosing", chosen.size > 0);
  bar.hidden = chosen.size === 0;
  const names = [...chosen];
  bar.replaceChildren(make("strong", {}, `${names.length} selected`), button("Favourites", () => star(names, true)), button("Not favourites", () => star(names, false)),
    button("Download", () => trigger("zip", { names })), button("Delete", once(() => discard(names))), button("Clear selection", () => { chosen.clear(); showChosen(); }));
}

/* Keys */
function wallKey(event) {
  const at = indexOf(event.target.closest(".card"));
  if (at < 0 || event.altKey) return;
  const top = wall.children[0].offsetTop;
  const columns = Math.max(1, [...wall.children].findIndex((node) => node.offsetTop > top));
  const moves = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns };
  const names = chosen.has(view.cards[at].name) ? [...chosen] : [view.cards[at].name];
  const control = event.ctrlKey || event.metaKey;
  if (event.key in moves) focusCard(at + moves[event.key]);
  else if (control && event.key === "a") { view.cards.forEach(({ name }) => chosen.add(name)); showChosen(); }
  else if (event.key === "Escape") { chosen.clear(); showChosen(); }
  else if (event.key === "f" && !control) star(names, !view.cards[at].star);
  else if (event.key === "Delete") { focusCard(at + 1 < view.cards.length ? at + 1 : at - 1); discard(names); }
  else return;
  event.preventDefault();
}

const focusCard = (index) => wall.children[index]?.querySelector(".open").focus();

/* What is done with pictures */
async function neighbour(card, by) {
  const among = results ?? view.cards;
  const index = among.findIndex(({ name }) => name === card.name) + by;
  if (among[index] || results) return among[index];
  if (index < 0 ? back.disabled : forth.disabled) return null;
  await turn(by);
  return view.cards.at(index < 0 ? -1 : 0);
}

function use(card, how) {
  if (how === "seed") return document.dispatchEvent(new CustomEvent("atelier-seed", { detail: card.seed }));
  trigger("pick", { name: card.name, how });
}

function star(names, on) {
  const shown = viewer.shown();
  [...view.cards, ...(results ?? []), ...(shown ? [shown] : [])].forEach((card) => { if (names.includes(card.name)) card.star = on; });
  render();
  trigger("star", { names, on });
}

function discard(names) {
  const shown = viewer.shown();
  const after = shown && names.includes(shown.name) ? (results ?? view.cards).filter(({ name }) => name === shown.name || !names.includes(name)) : null;
  if (after) {
    const at = after.findIndex(({ name }) => name === shown.name);
    const next = after[at + 1] ?? after[at - 1];
    if (results) results = results.filter(({ name }) => !names.includes(name));
    if (next) viewer.show(next);
    else viewer.close();
  }
  names.forEach((name) => chosen.delete(name));
  trigger("discard", { names });
}

// The server tells that something has changed, and what became of an order.
let lastOrder = ""; // the zip file or the deletion that was shown last
function receive() {
  const news = props.value ?? {};
  const order = news.zip ?? news.discarded?.id;
  if (news.zip && order !== lastOrder) make("a", { href: news.zip, download: true }).click();
  if (news.discarded && order !== lastOrder) {
    const { id, title } = news.discarded;
    undo.replaceChildren(make("span", {}, `${title}: in the bin.`), button("Undo", () => { undo.hidden = true; trigger("undo", { id }); }), button("Close", () => (undo.hidden = true)));
    undo.hidden = false;
  }
  lastOrder = order ?? lastOrder;
  if (news.version) ask();
}

document.addEventListener("atelier-open-pictures", ({ detail }) => {
  if (!element.isConnected) return;
  results = detail.cards.map(fresh);
  viewer.show(results[detail.index]);
});
watch("value", receive);
receive();
