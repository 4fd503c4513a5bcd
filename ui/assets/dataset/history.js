// The list of edits, the latest first, each with a way back to it. Runs inside gr.HTML, after dom.js.
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

function receive() {
  const edits = props.value?.edits ?? [];
  element.replaceChildren();
  if (edits.length === 0) return element.append(make("p", { class: "quiet" }, "Nothing was changed yet. Every change of captions or files will be listed here and can be taken back."));
  const now = edits.find((edit) => edit.in_effect)?.number ?? edits.at(-1).number - 1;
  element.append(make("ol", {}, ...edits.map((edit) => line(edit, now)), line({ number: edits.at(-1).number - 1, in_effect: true }, now)));
}

function line({ number, title, time, steps, in_effect }, now) {
  const what = title === undefined ? make("span", { class: "title" }, "As it was before these changes") : make("span", { class: "title" }, title);
  const when = make("span", { class: "quiet" }, title === undefined ? "" : `${moment.format(time * 1000)}, ${steps} ${steps === 1 ? "file" : "files"}`);
  const go = number === now ? make("span", { class: "now" }, "now") : button(in_effect ? "Go back to here" : "Do again up to here", () => trigger("go", { number }));
  return make("li", { class: in_effect ? "" : "undone", "aria-current": number === now }, what, when, go);
}

watch("value", receive);
receive();
