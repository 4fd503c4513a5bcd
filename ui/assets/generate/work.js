// What is being drawn, the pictures that are done, and the requests that wait. Runs inside gr.HTML, after dom.js.
const REFRESH_MS = 700; // the server writes the picture being drawn anew about twice a second
const words = make("span");
const stop = button("Cancel", () => trigger("cancel", { id: view.id }), { id: "generate-cancel", hidden: true });
const bar = make("div", { class: "progress", role: "progressbar", "aria-label": "Drawing", "aria-valuemin": 0, "aria-valuemax": 100, hidden: true }, make("i"));
const status = make("div", { class: "status", id: "generate-status" }, make("div", { class: "line", role: "status" }, words, stop), bar);
const problems = make("ul", { class: "problems", role: "alert", hidden: true });
const notes = make("ul", { class: "notes quiet", hidden: true }); // how it is drawn where memory is short
const live = make("img", { alt: "The picture being drawn", onload: () => setTimeout(refreshLive, REFRESH_MS) });
const liveBox = make("figure", { class: "live" }, live);
const pictures = make("div", { class: "picture-grid large" });
const result = make("div", { id: "generate-result" }, pictures);
const queue = make("ol", { "aria-label": "Waiting" });
const stopAll = button("Cancel all", () => trigger("cancel", { id: "" }));
const waiting = make("section", { class: "waiting", hidden: true }, make("header", {}, make("h3", {}, "Waiting"), stopAll), queue);
element.append(status, problems, notes, result, waiting);
let view = {};
let cards = [];
let queued = "[]"; // the rows that are shown
let refreshed = -Infinity; // when the picture being drawn was asked for last

function receive() {
  view = props.value ?? {};
  cards = JSON.parse(view.cards ?? "[]");
  const busy = view.state === "waiting" || view.state === "running";
  words.textContent = [view.words, view.left].filter(Boolean).join(", ");
  stop.hidden = !busy;
  bar.hidden = view.state !== "running" || !view.share;
  bar.setAttribute("aria-valuenow", Math.round((view.share ?? 0) * 100));
  bar.firstChild.style.width = `${(view.share ?? 0) * 100}%`;
  problems.hidden = !view.problems?.length;
  problems.replaceChildren(...(view.problems ?? []).map((text) => make("li", {}, text)));
  notes.hidden = !view.notes?.length;
  notes.replaceChildren(...(view.notes ?? []).map((text) => make("li", {}, text)));
  showPictures();
  showQueue();
}

function showPictures() {
  if (view.live && performance.now() - refreshed > 3 * REFRESH_MS) refreshLive(); // new, or it stopped: hidden meanwhile, or between two pictures
  const nothing = !cards.length && !view.live ? make("div", { class: "blank low" }, "Your pictures appear here.") : null;
  const kept = new Map([...pictures.children].map((node) => [node.dataset.large, node]));
  pictures.replaceChildren(...cards.map((card, index) => kept.get(card.url) ?? make("button", { type: "button", "data-large": card.url, title: card.words, onclick: () => open(index) },
    make("img", { src: card.url, alt: card.words }))), ...(view.live ? [liveBox] : []), ...(nothing ? [nothing] : []));
}

function refreshLive() {
  if (!view.live || document.visibilityState === "hidden") return;
  refreshed = performance.now();
  live.src = `${view.live}&again=${Date.now()}`;
}

const open = (index) => document.dispatchEvent(new CustomEvent("atelier-open-pictures", { detail: { cards, index } }));

// What is being drawn has its own line above.
function showQueue() {
  const rows = (view.queue ?? []).filter(({ id, running }) => !running && id !== view.id);
  const now = JSON.stringify(rows);
  if (now === queued) return; // a button that is made anew loses the click that is going on
  queued = now;
  const focused = element.getRootNode().activeElement?.dataset?.key;
  waiting.hidden = rows.length === 0;
  queue.replaceChildren(...rows.map(({ id, prompt, count }, place) => make("li", {},
    make("span", { class: "prompt", title: prompt }, prompt), make("span", { class: "quiet" }, count === 1 ? "1 picture" : `${count} pictures`),
    place > 0 ? button("To the front", () => trigger("front", { id }), { "aria-label": `To the front: ${prompt}`, "data-key": `front ${id}` }) : null,
    button("Cancel", () => trigger("cancel", { id }), { "aria-label": `Cancel: ${prompt}`, "data-key": `cancel ${id}` }))));
  if (focused) queue.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
}

watch("value", receive);
receive();
