// The search over all settings, and the switch between the basic ones and all. Runs behind dom.js inside gr.HTML.
const ALL_KEY = "atelier-all-settings";
const index = JSON.parse(props.value.text);
const form = element.closest(".settings-form") || document.body;

const input = make("input", {
  type: "search",
  id: "field-search",
  autocomplete: "off",
  spellcheck: "false",
  "aria-label": "Search settings",
  "aria-describedby": "field-search-keys",
  placeholder: "Search settings, also by other trainers’ names (network_dim, unet_lr)",
  oninput: search,
  onkeydown: keyPressed,
});
const keys = make("span", { id: "field-search-keys", hidden: true }, "Enter goes to the best match, Escape ends the search, / starts one.");
const count = make("span", { id: "field-search-count", role: "status" });
const all = make("input", { type: "checkbox", id: "all-settings", onchange: () => showAll(all.checked) });
element.replaceChildren(make("div", { class: "field-search" }, input, keys, count, make("label", {}, all, "All settings")));
showAll(localStorage.getItem(ALL_KEY) === "yes");

function showAll(shown) {
  all.checked = shown;
  localStorage.setItem(ALL_KEY, shown ? "yes" : "no");
  form.classList.toggle("all-settings", shown);
}

// "--network_dim=32" and "Min SNR" mean network_dim and Min-SNR.
const wordsOf = (text) => text.toLowerCase().replace(/=\S*/g, "").split(/\s+/).map(squashed).filter(Boolean);
const squashed = (text) => text.toLowerCase().replace(/[-_\s]/g, "");

// How well a setting fits: 3 called just so, 2 begins so, 1 every word is found, 0 not at all.
function fit(entry, words, whole) {
  const names = entry.names.map(squashed);
  if (names.includes(whole)) return 3;
  if (names.some((name) => name.startsWith(whole))) return 2;
  const text = names.join(" ") + " " + squashed(entry.help);
  return words.every((word) => text.includes(word)) ? 1 : 0;
}

function search() {
  const words = wordsOf(input.value);
  const whole = words.join("");
  const found = new Map();
  form.querySelectorAll(".found-as").forEach((old) => old.remove());
  for (const entry of index) {
    const field = atelier.placeOf(entry.name);
    const fits = words.length ? fit(entry, words, whole) : 1;
    field.classList.toggle("no-match", !fits);
    if (words.length && fits) found.set(entry, fits);
    if (words.length && fits) tellName(field, entry, words);
  }
  form.classList.toggle("searching", words.length > 0);
  form.classList.toggle("rows-found", [...found.keys()].some((entry) => entry.name === "dataset.sources"));
  form.querySelectorAll(".section").forEach((section) => {
    const shown = section.querySelector(".field[id^='field-']:not(.no-match):not(.source-row *), .rows-title:not(.no-match)");
    section.classList.toggle("empty", words.length > 0 && !shown);
  });
  count.textContent = words.length ? (found.size ? `${found.size} setting${found.size > 1 ? "s" : ""}` : "No setting is called so") : "";
  return [...found].sort((one, other) => other[1] - one[1]).map(([entry]) => entry.name);
}

// Says by which other name a setting was found, where its label does not.
function tellName(field, entry, words) {
  const [label, ...others] = entry.names;
  if (words.some((word) => squashed(label).includes(word))) return;
  const name = others.find((other) => words.every((word) => squashed(other).includes(word)));
  if (name) field.append(make("small", { class: "found-as" }, `Also called ${name}`));
}

function keyPressed(event) {
  if (event.key === "Escape") end();
  if (event.key !== "Enter" && event.key !== "ArrowDown") return;
  event.preventDefault();
  const [best] = search();
  if (input.value.trim() && best) (atelier.placeOf(best).querySelector("input, textarea") || firstCell()).focus();
}

const firstCell = () => form.querySelector(".source-row input, .source-row textarea");

function end() {
  if (!input.value) return;
  input.value = "";
  search();
}

document.addEventListener("atelier-end-search", end);
document.addEventListener("keydown", (event) => {
  const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
  if (event.key !== "/" || typing || event.ctrlKey || event.metaKey || event.altKey || !input.offsetParent) return;
  event.preventDefault();
  input.focus();
});
