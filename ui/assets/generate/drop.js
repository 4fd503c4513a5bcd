// A picture dropped anywhere on the tab, pasted or chosen gives its settings to the form. Runs inside gr.HTML, after dom.js.
const SOURCE = "#generate-source";
const file = make("input", { type: "file", accept: "image/*", hidden: true, onchange: () => file.files[0] && send(file.files[0]) });
const words = make("p", { class: "drop-words" });
const veil = make("div", { class: "drop-veil", style: "pointer-events: none", role: "status", hidden: true }, make("div", { class: "drop-box" }, words));
element.replaceChildren(make("div", { class: "chips" }, button("Read the settings of a picture", () => file.click(), { id: "generate-open" }),
  make("span", { class: "quiet" }, "or drop one anywhere here")), file, veil);

const onTab = () => element.getClientRects().length > 0 && !document.querySelector("dialog[open]");
const hasFiles = (event) => Array.from(event.dataTransfer?.types ?? []).includes("Files");
const forSource = (event) => Boolean(event.target.closest?.(SOURCE));

document.addEventListener("dragover", (event) => {
  if (!onTab() || !hasFiles(event)) return void (veil.hidden = true);
  event.preventDefault();
  words.textContent = forSource(event) ? "Drop the picture to start from" : "Drop the picture to read its settings";
  veil.hidden = false;
});
document.addEventListener("dragleave", (event) => { if (event.relatedTarget === null) veil.hidden = true; });
document.addEventListener("drop", (event) => {
  if (!onTab() || !hasFiles(event)) return;
  event.preventDefault();
  veil.hidden = true;
  take(event.dataTransfer.files[0], forSource(event));
});
document.addEventListener("paste", (event) => {
  const pasted = onTab() && [...(event.clipboardData?.files ?? [])].find(({ type }) => type.startsWith("image/"));
  if (!pasted) return; // text goes where the cursor is
  event.preventDefault();
  take(pasted, forSource(event));
});

function take(picture, asSource) {
  if (!picture) return;
  if (asSource) document.dispatchEvent(new CustomEvent("atelier-start-from", { detail: picture }));
  else send(picture);
}

async function send(picture) {
  const { path } = await upload(picture);
  file.value = "";
  trigger("dropped", { path });
}

// "Use its seed" of the viewer: the form keeps the rest.
document.addEventListener("atelier-seed", ({ detail }) => {
  const field = document.querySelector("#generate-seed input");
  field.value = detail;
  field.dispatchEvent(new Event("input", { bubbles: true }));
  const each = document.querySelector("#generate-new-seed input");
  if (each.checked) each.click();
});
