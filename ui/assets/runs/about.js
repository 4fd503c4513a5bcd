// What a person wrote about a run, and the form to change it. Runs inside gr.HTML, after dom.js.
let seen = "";
let editing = "";  // id of the run whose form is open

function receive() {
  const value = JSON.stringify(props.value || {});
  if (value === seen) return;
  seen = value;
  editing = ""; // saved, or another run
  render();
}

function render() {
  const { run, name = "", note = "", begun = "", origin } = props.value || {};
  if (!run) return element.replaceChildren();
  if (editing === run) return element.replaceChildren(form(name, note));
  const open = () => { editing = run; render(); element.querySelector("input").focus(); };
  element.replaceChildren(...[begun && make("p", { class: "quiet" }, begun), origin && madeOf(origin), note && make("p", { class: "note" }, note)].filter(Boolean),
    button(note ? "Rename, change the note" : "Rename, add a note", open));
}

function madeOf({ run, name, there, differences }) {
  if (!there) return make("p", { class: "quiet" }, `Made of the settings of a run that is no longer there: ${name}.`);
  const which = button(name, () => trigger("pick", { run }), { class: "to-run", "aria-label": `Show the run ${name}` });
  const count = differences.length;
  const how = count ? `. ${count === 1 ? "1 setting differs" : `${count} settings differ`}:` : ", with the same settings.";
  const rows = differences.map((each) => make("li", { title: each.name }, make("span", {}, each.label), make("b", {}, each.now), make("span", { class: "quiet" }, `was ${each.before}`)));
  return make("div", { class: "origin" }, make("p", { class: "quiet" }, "Made of the settings of ", which, how), count ? make("ul", {}, ...rows) : null);
}

function form(name, note) {
  const { run, note_characters } = props.value;
  const title = make("input", { value: name, maxlength: 80, required: true });
  const text = make("textarea", { rows: 3, maxlength: note_characters });
  text.value = note;
  const save = (event) => {
    event.preventDefault();
    if (title.value === name && text.value.trim() === note) return close();
    trigger("save", { run, name: title.value, note: text.value });
  };
  return make("form", { onsubmit: save },
    make("label", {}, "Name", title),
    make("label", {}, "Note", text),
    make("div", { class: "buttons" }, make("button", { type: "submit", class: "main" }, "Save"), button("Cancel", close)));
}

function close() {
  editing = "";
  render();
}

watch("value", receive);
receive();
