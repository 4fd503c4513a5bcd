// Drafted captions, each beside its picture: accept, edit, reject, draft anew, write. Runs inside gr.HTML after dom.js.
const SHOWS = { all: "All", open: "To decide", accepted: "Accepted", rejected: "Rejected", conflict: "Changed meanwhile" };
const STATES = { open: "", accepted: "Accepted", rejected: "Rejected", conflict: "The caption was changed meanwhile" };
let review = {};
let asking = null; // name of the draft whose prompt is being typed
let sure = false; // whether "Discard" was pressed once

const counts = make("span", { class: "rv-counts", role: "status" });
const show = make("select", { "aria-label": "Show drafts", onchange: () => turn(0) });
const list = make("div", { class: "rv-list" });
const where = make("span", { "aria-live": "polite" });
const back = button("‹ Previous page", () => turn(review.page - 1));
const forth = button("Next page ›", () => turn(review.page + 1));
const write = button("", () => trigger("write"), { class: "rv-main" });
const discard = button("", pressDiscard);
const acceptPage = button("Accept this page", () => decideMany("accepted", review.cards.filter((card) => card.state === "open").map((card) => card.name)));
const acceptAll = button("", () => decideMany("accepted", null));
const panel = make("section", { class: "rv", "aria-label": "Drafts of captions" },
  make("header", {}, make("h2", {}, "Look the drafts over"), counts),
  make("p", { class: "rv-quiet" }, "Nothing is written yet. Accept what you like, change or reject the rest, then write the accepted ones: that is one step for Undo."),
  make("div", { class: "rv-bar" }, show, acceptPage, acceptAll, write, discard),
  list,
  make("nav", { class: "rv-pager", "aria-label": "Pages of drafts" }, back, where, forth));

const at = () => ({ page: review.page, show: review.show });
const turn = (page) => trigger("turn", { page, show: show.value || "all" });
const decideMany = (decision, names) => trigger("decidemany", { decision, names, ...at() });

function pressDiscard() {
  if (sure) trigger("discard");
  sure = !sure;
  showBar();
}

function receive() {
  const sent = props.value || {};
  if (sent.folder !== review.folder) sure = false;
  review = sent;
  element.replaceChildren(...(review.total ? [panel] : []));
  if (!review.total) return list.replaceChildren();
  showBar();
  showList();
}

function showBar() {
  const { open, accepted, rejected, conflict } = review.counts;
  counts.textContent = [`${review.total} drafts`, accepted && `${accepted} accepted`, rejected && `${rejected} rejected`, conflict && `${conflict} changed meanwhile`].filter(Boolean).join(", ");
  show.replaceChildren(...Object.entries(SHOWS).map(([value, label]) =>
    make("option", { value }, `${label} (${value === "all" ? review.total : review.counts[value]})`)));
  show.value = review.show;
  acceptPage.disabled = !review.cards.some((card) => card.state === "open");
  acceptAll.disabled = open === 0;
  acceptAll.textContent = `Accept all ${open}`;
  write.disabled = accepted === 0;
  write.textContent = `Write ${accepted} ${accepted === 1 ? "caption" : "captions"}`;
  discard.textContent = sure ? `Really discard ${review.total}?` : "Discard drafts";
  back.disabled = review.page === 0;
  forth.disabled = review.page >= review.pages - 1;
  back.parentElement.hidden = review.pages < 2;
  where.textContent = review.matching ? `${review.first + 1} to ${review.first + review.cards.length} of ${review.matching}` : "";
}

// Cards stay in place while somebody types: what is not saved yet is never replaced.
function showList() {
  const known = new Map([...list.children].map((node) => [node.dataset.name, node]));
  const nodes = review.cards.map((card) => {
    const node = known.get(card.name);
    const box = node?.querySelector("textarea.rv-text");
    if (node && box.value !== box.dataset.saved && box.dataset.saved === card.text && node.dataset.state === card.state) return node;
    if (node && node.dataset.shown === JSON.stringify(card)) return node;
    const made = row(card);
    made.children[1].append(...(node?.querySelectorAll(".rv-prompt") ?? [])); // the prompt that is being typed
    return made;
  });
  const focused = list.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  if (nodes.length !== list.children.length || nodes.some((node, index) => node !== list.children[index])) list.replaceChildren(...nodes);
  if (focused) list.querySelector(`[data-focus="${CSS.escape(focused)}"]`)?.focus();
  if (!review.cards.length) list.append(make("p", { class: "rv-quiet" }, "No drafts of this kind."));
}

function row(card) {
  const box = make("textarea", { class: "rv-text", rows: 3, "aria-label": `New caption of ${card.name}`, "data-focus": `text ${card.name}`,
    onblur: (event) => event.relatedTarget?.closest(".rv-row") !== box.closest(".rv-row") && edited(card, box), onkeydown: (event) => boxKey(event, card, box) });
  box.value = box.dataset.saved = card.text;
  const decide = (decision) => trigger("decide", { name: card.name, decision: card.state === decision ? "open" : decision, text: box.value, ...at() });
  const word = card.state === "conflict" ? "Use this one" : "Accept";
  return make("article", { class: `rv-row rv-${card.state}`, "data-name": card.name, "data-state": card.state, "data-shown": JSON.stringify(card) },
    make("img", { src: card.thumb, alt: "", loading: "lazy" }),
    make("div", {},
      make("p", { class: "rv-name" }, card.name, make("span", { class: "rv-state" }, STATES[card.state])),
      card.difference.length ? difference(card) : null,
      box),
    make("div", { class: "rv-buttons" },
      button(word, () => decide("accepted"), { "aria-pressed": String(card.state === "accepted"), "data-focus": `accept ${card.name}` }),
      button("Reject", () => decide("rejected"), { "aria-pressed": String(card.state === "rejected"), "data-focus": `reject ${card.name}` }),
      button("Draft anew", () => { edited(card, box); ask(asking === card.name ? null : card.name); })));
}

function difference(card) {
  const tags = { same: "span", old: "del", new: "ins" };
  return make("p", { class: "rv-difference" }, make("span", { class: "rv-label" }, card.state === "conflict" ? "Now, and with this one: " : "Before and after: "),
    ...card.difference.map(([kind, text]) => make(tags[kind], {}, text)));
}

function edited(card, box) {
  if (box.value !== box.dataset.saved) accept(card, box);
}

function accept(card, box) {
  box.dataset.saved = box.value;
  trigger("decide", { name: card.name, decision: "accepted", text: box.value, ...at() });
}

function boxKey(event, card, box) {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
  event.preventDefault();
  accept(card, box);
  list.querySelectorAll("textarea.rv-text")[review.cards.findIndex((other) => other.name === card.name) + 1]?.focus();
}

function promptForm(card) {
  const prompt = make("textarea", { rows: 2, "aria-label": "Prompt for this picture", "data-focus": `prompt ${card.name}`, placeholder: "Another prompt for this picture; empty: as chosen above" });
  return make("div", { class: "rv-prompt" }, prompt, button("Draft", () => {
    trigger("again", { name: card.name, prompt: prompt.value });
    ask(null);
  }));
}

function ask(name) {
  asking = name;
  list.querySelectorAll(".rv-prompt").forEach((form) => form.remove());
  const card = review.cards.find((one) => one.name === name);
  if (!card) return;
  const form = promptForm(card);
  [...list.children].find((node) => node.dataset.name === name).children[1].append(form);
  form.firstChild.focus();
}

watch("value", receive);
receive();
