// What differs from the preset or run and what has no effect now: beside each setting, and as a list with a way back.
// Runs behind dom.js inside gr.HTML; the server sends `props.value.text`.
let shownText = "";
let listIsOpen = false;
let waiting = 0;

function mark() {
  const text = props.value.text || "";
  if (!text || text === shownText) return;
  const state = JSON.parse(text);
  const places = state.marks.map((told) => atelier.placeOf(told.name));
  clearTimeout(waiting);
  if (!places.every((place) => place && !place.matches(".section"))) {
    waiting = setTimeout(mark, 50); // the form's components come one after the other
    return;
  }
  shownText = text;
  const focused = document.activeElement?.closest(".field-mark")?.dataset.name;
  clear();
  state.marks.forEach((told, number) => tell(told, places[number], state.against));
  countInFolds();
  list(state);
  if (focused) atelier.placeOf(focused)?.querySelector("input, textarea")?.focus({ preventScroll: true });
}

function clear() {
  document.querySelectorAll(".field-mark").forEach((old) => old.remove());
  for (const name of ["idle", "kept", "differs"]) {
    document.querySelectorAll(`.settings-form .${name}`).forEach((old) => old.classList.remove(name));
  }
}

function tell(told, place, against) {
  place.classList.toggle("idle", Boolean(told.idle));
  place.classList.toggle("kept", Boolean(told.idle) && (told.changed || told.differs));
  place.classList.toggle("differs", told.differs);
  const note = make("div", { class: "field-mark", "data-name": told.name });
  if (told.idle) note.append(make("p", { class: "why-idle" }, told.idle));
  if (told.differs) note.append(make("p", {}, make("span", { class: "visually-hidden" }, `Differs from ${against}. `), back(told, `Back to ${told.before}`)));
  place.append(note);
}

const back = (told, text) => button(text, () => trigger("revert", { name: told.name }), { class: "back", "aria-label": `${told.label}: back to ${told.before}` });

function countInFolds() {
  document.querySelectorAll(".settings-form .section").forEach((section) => {
    const fold = document.getElementById(section.id.replace("section-", "fold-"));
    const count = section.querySelectorAll(".more .differs").length;
    if (!fold) return;
    if (count) fold.dataset.changed = `${count} changed`;
    else delete fold.dataset.changed;
  });
}

function list(state) {
  const differing = state.marks.filter((told) => told.differs);
  const how = differing.length === 1 ? "1 setting differs" : `${differing.length || "No"} settings differ`;
  const parts = [make("p", { role: "status" }, make("strong", {}, how), ` from ${state.against}.`)];
  if (differing.length) {
    const rows = differing.map((told) =>
      make(
        "li",
        {},
        button(told.label, () => atelier.showSetting(told.name), { class: "to-setting" }),
        make("span", {}, ` ${told.now} `),
        back(told, `Back to ${told.before}`),
      ),
    );
    const details = make("details", { ontoggle: () => (listIsOpen = details.open) }, make("summary", {}, "Which ones"), make("ul", {}, ...rows));
    details.open = listIsOpen;
    parts.push(details);
  }
  const actions = make("p", { class: "changes-actions" });
  if (differing.length) actions.append(button("All back", () => trigger("revert", { name: "" }), { title: `Set all of them as in ${state.against}` }));
  if (state.undo) actions.append(button("Bring back the settings from before", () => trigger("before", {})));
  element.replaceChildren(make("div", { class: "changes" }, ...parts, actions));
}

watch("value", mark);
mark();
