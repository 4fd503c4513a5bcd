// Dropping pictures, captions, zip files and folders anywhere on the Dataset tab. Names only ever appear as text.
const AT_ONCE = 4;
const words = make("p", { class: "drop-words" });
const bar = make("progress", { hidden: true });
const stop = button("Cancel", () => { cancelled = true; }, { hidden: true });
const veil = make("div", { class: "drop-veil", role: "status", hidden: true }, make("div", { class: "drop-box" }, words, bar, stop));
element.replaceChildren(veil);
let busy = false;
let cancelled = false;

const onTab = () => element.offsetParent !== null || element.getClientRects().length > 0;
const hasFiles = (event) => Array.from(event.dataTransfer?.types ?? []).includes("Files");
// A drop on a field for files of its own is that field's.
const mine = (event) => onTab() && hasFiles(event) && !event.target.closest?.("[data-testid=file], #dataset-upload");

function say(text) {
  words.textContent = text;
  veil.hidden = false;
}

function hide() {
  veil.hidden = true;
  bar.hidden = stop.hidden = true;
}

function over(event) {
  if (!mine(event)) return busy || hide();
  event.preventDefault();
  if (!busy) say("Drop pictures, captions, zip files or folders to add them");
}

async function drop(event) {
  if (!mine(event)) return;
  event.preventDefault();
  event.stopPropagation();
  if (busy) return;
  busy = true;
  cancelled = false;
  try {
    const files = await listed(event.dataTransfer.items);
    const sent = await sendAll(files);
    if (!sent.length || cancelled) return finish();
    bar.removeAttribute("value");
    stop.hidden = true;
    say("Adding them to the dataset");
    trigger("dropped", { files: sent });
  } catch (error) {
    trigger("refused", { reason: String(error?.message ?? error).slice(0, 300) });
    finish();
  }
}

function finish() {
  busy = false;
  hide();
}

/* All files, folders opened. Entries must be asked for before anything is awaited: afterwards they are gone. */
async function listed(items) {
  const entries = Array.from(items).filter((item) => item.kind === "file")
    .map((item) => [item.webkitGetAsEntry?.(), item.getAsFile()]);
  const found = [];
  for (const [entry, file] of entries) {
    if (entry) await walk(entry, found);
    else if (file) found.push([file.name, file]);
  }
  return found.filter(([name]) => !name.split("/").some((part) => part.startsWith(".")));
}

async function walk(entry, found) {
  if (entry.isFile) {
    found.push([entry.fullPath.replace(/^\//, ""), await new Promise((done, fail) => entry.file(done, fail))]);
    return;
  }
  const reader = entry.createReader();
  for (;;) { // a reader gives a hundred entries at a time, then none
    const some = await new Promise((done, fail) => reader.readEntries(done, fail));
    if (!some.length) return;
    for (const inner of some) await walk(inner, found);
  }
}

async function sendAll(files) {
  const sent = [];
  const waiting = files.slice();
  bar.hidden = stop.hidden = false;
  bar.max = files.length;
  async function send() {
    while (waiting.length && !cancelled) {
      const [name, file] = waiting.shift();
      bar.value = sent.length;
      say(`Uploading ${sent.length + 1} of ${files.length}`);
      const { path } = await upload(file);
      sent.push({ path, name });
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, send));
  return sent;
}

watch("value", finish);
document.addEventListener("dragover", over);
document.addEventListener("drop", drop);
document.addEventListener("dragleave", (event) => { if (!busy && event.relatedTarget === null) hide(); });
