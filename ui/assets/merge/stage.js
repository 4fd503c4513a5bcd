// The live preview of the Merge tab: prompts, the pictures they give, and how far the newest is. Runs inside gr.HTML
// after dom.js and compare.js. `props.value`: `moved`, the values of sliders and fields as JSON, with the time `at` which
// they were moved; `prompts` that the server wants shown, with the time it `sent` them; with `kept`, values as they were
// last `moved`, and the `request` made of them for pictures of a `sum`. Prompts typed are kept here.
const MOST_PROMPTS = 4, LOOK_AGAIN_MS = 50, UNREACHED_MS = 1000, MERGED_AGAIN_MS = 400;
const VIEW = "atelier-merge-view";
let sent = null, movedAt = null, moved = null;
let asking = false, askAgain = false;
let newest = ""; // the request whose pictures are waited for
let looking = new AbortController(); // ends the question for the request before
let settled = ""; // what was asked last, where that is drawn or being drawn: leaving a field unchanged asks for nothing
let figures = []; // one for each prompt

const words = make("span", { class: "doing", role: "status" }), bar = make("i"), progress = make("div", { class: "progress", role: "progressbar", "aria-label": "Drawing", "aria-valuemin": 0, "aria-valuemax": 100 }, bar);
const problems = make("ul", { class: "problems", role: "alert", hidden: true });
const notes = make("ul", { class: "notes quiet", hidden: true }); // how it is drawn where memory is short
const pictures = make("div", { class: "figures" });
const add = button("Add a prompt", () => { addFigure(""); figures.at(-1).field.focus(); });
const views = ["slide", "side"].map((view) => button({ slide: "Divider", side: "Side by side" }[view], () => chooseView(view), { "data-view": view }));
element.replaceChildren(make("div", { class: "head" }, make("div", { class: "views", role: "group", "aria-label": "How the pictures are compared" }, ...views), words, add), progress, problems, notes, pictures);

function chooseView(view) {
  localStorage.setItem(VIEW, view);
  element.classList.toggle("side-by-side", view === "side");
  views.forEach((each) => each.setAttribute("aria-pressed", String(each.dataset.view === view)));
}

function addFigure(prompt) {
  const compare = makeCompare();
  const field = make("textarea", { rows: 2, onchange: ask, onkeydown: (event) => {
    if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); field.blur(); }
  } });
  field.value = prompt;
  const remove = button("×", () => removeFigure(figure), { class: "remove" });
  const enlarge = button("Large", () => openLarge(field.value, compare.addresses()), { hidden: true });
  const caption = make("figcaption");
  const figure = { compare, field, remove, enlarge, caption, node: null };
  figure.node = make("figure", {}, make("div", { class: "prompt" }, field, remove), compare.node, make("div", { class: "below" }, caption, enlarge));
  compare.say(figures.length ? "Type a prompt: its pictures appear here." : "Choose a LoRA and move its slider: the pictures show what it does, before anything is saved.");
  figures.push(figure);
  pictures.append(figure.node);
  nameFigures();
}

function removeFigure(figure) {
  figures = figures.filter((each) => each !== figure);
  figure.node.remove();
  nameFigures();
  figures[0].field.focus();
  ask();
}

function nameFigures() {
  figures.forEach(({ field, remove, enlarge }, number) => {
    field.setAttribute("aria-label", `Prompt ${number + 1} of the preview`);
    remove.setAttribute("aria-label", `Remove prompt ${number + 1}`);
    remove.hidden = figures.length === 1;
    enlarge.setAttribute("aria-label", `Pictures of prompt ${number + 1} large`);
  });
  add.disabled = figures.length >= MOST_PROMPTS;
  element.classList.toggle("several", figures.length > 1);
}

// One question at a time. What moves meanwhile is asked for next, and only as it stands then.
async function ask() {
  askAgain = true;
  if (asking || moved === null) return;
  asking = true;
  while (askAgain) {
    askAgain = false;
    const drawn = figures.filter(({ field }, number) => number === 0 || field.value.trim());
    const prompts = drawn.map(({ field }) => field.value.trim());
    const question = JSON.stringify({ moved, prompts });
    if (question === settled) continue;
    const answer = await server.ask({ values: JSON.parse(moved), prompts }).catch(() => ({ problems: ["The program does not answer. It asks again with the next move."] }));
    tellProblems(answer.problems || []);
    newest = answer.request || "";
    settled = newest && question;
    if (newest) drawn.forEach(({ compare }) => compare.say("Its pictures come in a moment."));
    if (newest) follow(newest, drawn, prompts, answer.sum);
    else say(answer.preparing ? "Merging as Save would do it" : "");
    if (!answer.preparing) continue;
    await pause(MERGED_AGAIN_MS);
    askAgain = true;
  }
  asking = false;
}

// The server holds a question back until there is something new.
async function follow(request, drawn, prompts, sum) {
  looking.abort();
  looking = new AbortController();
  say(`Drawing ${sum}`, 0);
  for (let seen = ""; request === newest; ) {
    const reply = await fetch(`/atelier/merge/previews/${request}?seen=${encodeURIComponent(seen)}`, { signal: looking.signal }).catch(() => null);
    if (request !== newest) return;
    if (reply && reply.status === 404) return tellEnd({ state: "gone", problems: [] }, sum);
    const answer = reply && reply.ok ? await reply.json().catch(() => null) : null;
    if (request !== newest) return;
    if (answer) {
      seen = answer.version;
      showPictures(answer, drawn, prompts, sum);
      if (answer.final) return tellEnd(answer, sum);
    }
    say(answer ? `${answer.words} ${sum}` : `The program does not answer: waiting for ${sum}`, answer ? answer.share : 0);
    await pause(answer ? LOOK_AGAIN_MS : UNREACHED_MS);
  }
}

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

function showPictures({ pictures: done, live, notes: told }, drawn, prompts, sum) {
  notes.hidden = !told.length;
  notes.replaceChildren(...told.map((note) => make("li", {}, note)));
  drawn.forEach(({ compare, caption, enlarge, node }, number) => {
    const pair = [done[2 * number], done[2 * number + 1]];
    const underWay = Math.floor(done.length / 2) === number;
    if (live && underWay) pair[done.length % 2] = live;
    node.classList.toggle("live", Boolean(live && underWay));
    compare.show(prompts[number], pair).then(() => {
      if (!done[2 * number + 1] || compare.addresses()[1] !== done[2 * number + 1]) return; // words and picture change together
      if (caption.textContent !== sum) caption.textContent = sum;
      enlarge.hidden = false;
    });
  });
}

function tellEnd({ state, problems: found }, sum) {
  if (state !== "done") settled = "";
  figures.forEach(({ node }) => node.classList.remove("live"));
  tellProblems(found);
  say(state === "cancelled" ? `${sum} was not drawn: another page asked for a preview meanwhile.` : "");
}

function tellProblems(found) {
  problems.hidden = !found.length;
  problems.replaceChildren(...found.map((problem) => make("li", {}, problem)));
}

// `share` of the work that is done; without it nothing is under way
function say(text, share = null) {
  if (words.textContent !== text) words.textContent = text; // a screen reader reads it out when it changes
  progress.style.visibility = share === null ? "hidden" : "visible"; // what is below does not jump
  bar.style.width = `${100 * share}%`;
  progress.setAttribute("aria-valuenow", Math.round(100 * share));
}

// A reloaded page shows what was asked for last, and asks again only when something is changed.
function showLast({ kept, prompts, request, sum }) {
  moved = kept;
  if (!request) return figures.forEach(({ compare }) => compare.say("Move a slider, or change the prompt: the pictures show what it does."));
  newest = request;
  settled = JSON.stringify({ moved, prompts });
  follow(request, [...figures], prompts, sum);
}

function receive() {
  const value = props.value || {};
  if (value.prompts && value.sent !== sent) {
    [sent, settled] = [value.sent, ""];
    figures.forEach(({ node }) => node.remove());
    figures = [];
    value.prompts.slice(0, MOST_PROMPTS).forEach(addFigure);
    if (value.kept) showLast(value);
  }
  if (value.moved && value.at !== movedAt) {
    [moved, movedAt] = [value.moved, value.at];
    ask();
  }
}

chooseView(localStorage.getItem(VIEW) || "slide");
say("");
watch("value", receive);
receive();
