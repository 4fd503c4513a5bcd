// The end of a run's log, to follow, search and keep. Runs inside gr.HTML, after dom.js.
const text = make("pre", { tabindex: 0, "aria-label": "Log" });
const words = make("input", { type: "search", placeholder: "Search the whole log", "aria-label": "Search the whole log" });
const follow = make("input", { type: "checkbox", checked: true });
const save = make("a", { download: true }, "Download");
const count = make("span", { class: "quiet", role: "status" });
let run = "";
let turn = 0; // of searches: a late answer must not replace a newer one

function receive() {
  const value = props.value || {};
  if (run !== value.run) words.value = "";
  run = value.run;
  save.href = value.url || "";
  show();
}

async function show() {
  const number = ++turn;
  const asked = words.value.trim();
  if (!asked) {
    count.textContent = "";
    return fill(props.value?.text || "Nothing yet.");
  }
  const found = await server.search_log({ run, words: asked });
  if (number !== turn) return;
  count.textContent = found.problem || (found.more ? `the last ${found.lines.length} of ${found.count} lines` : `${found.count} ${found.count === 1 ? "line" : "lines"}`);
  fill((found.lines || []).join("\n"));
}

function fill(content) {
  if (text.textContent !== content) text.textContent = content;
  if (follow.checked) text.scrollTop = text.scrollHeight;
}

words.addEventListener("input", show);
follow.addEventListener("change", () => fill(text.textContent));
element.replaceChildren(make("div", { class: "buttons" }, words, make("label", { class: "check" }, follow, "Follow"), save, count), text);
// Scrolling up is reading: what comes then must not move it; back at the end it follows again
text.addEventListener("scroll", () => { follow.checked = text.scrollTop + text.clientHeight >= text.scrollHeight - 4; });
new ResizeObserver(() => { if (follow.checked) text.scrollTop = text.scrollHeight; }).observe(text);
watch("value", receive);
receive();
