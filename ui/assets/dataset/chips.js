// The caption's tags as chips, line by line: another view of the same text. An edit changes its own tag and leaves the
// spaces, the other tags and the other lines as they were written.
const PROSE_WORDS = 5; // so many words between commas, on average, are sentences
let chipsAsked = false; // somebody wants chips for prose
let filtering = 0; // a click filters unless it turns out to be the first half of a double click

const chips = make("div", { class: "ds-chips" });
const knownTags = make("datalist", { id: "dataset-known-tags" });
const chipHelp = "Click: show the pictures with it. Double click or F2: change it. Delete: remove it. Alt+arrows or dragging: move it.";

// "a,  b ,c" as [{lead: "", tag: "a", trail: ""}, {lead: "  ", tag: "b", trail: " "}, ...]; joining gives the same text.
function slotsOf(line) {
  return line.split(",").map((raw) => {
    const tag = raw.trim();
    const at = tag ? raw.indexOf(tag) : raw.length;
    return { lead: raw.slice(0, at), tag, trail: raw.slice(at + tag.length) };
  });
}

const joinSlots = (slots) => slots.map(({ lead, tag, trail }) => lead + tag + trail).join(",");

function renamed(slots, index, tag) {
  return slots.map((slot, at) => (at === index ? { ...slot, tag } : slot));
}

function without(slots, index) {
  const rest = slots.filter((_, at) => at !== index);
  if (index === 0 && rest.length) rest[0] = { ...rest[0], lead: slots[0].lead };
  return rest;
}

function withTag(slots, tag) {
  const last = slots.at(-1);
  const lead = slots.length > 1 && slots[1].tag ? slots[1].lead : " ";
  if (slots.length === 1 && !last.tag) return [{ lead: "", tag, trail: "" }];
  return last.tag ? [...slots, { lead, tag, trail: "" }] : [...slots.slice(0, -1), { lead, tag, trail: "" }];
}

// Tags change places; the spaces stay where they are.
function moved(slots, from, to) {
  const order = slots.map(({ tag }) => tag);
  order.splice(to, 0, ...order.splice(from, 1));
  return slots.map((slot, index) => ({ ...slot, tag: order[index] }));
}

function isProse(text) {
  const tags = text.split(/[,\n]/).filter((tag) => tag.trim());
  return tags.length > 0 && text.trim().split(/\s+/).length / tags.length > PROSE_WORDS;
}

function showChips() {
  const prose = isProse(box.value) && !chipsAsked;
  const lines = box.value.split("\n");
  if (prose) {
    chips.replaceChildren(button("Show as tags", () => { chipsAsked = true; showChips(); }, { class: "ds-calm", title: "This caption reads like sentences." }));
    return;
  }
  const shown = lines.map((line, number) => (line.trim() || lines.length === 1 ? chipRow(line, number) : null));
  chips.replaceChildren(knownTags, ...shown.filter(Boolean));
  markUnreadChips();
}

function showKnownTags() {
  knownTags.replaceChildren(...view.tags.map(([tag]) => make("option", { value: tag })));
}

function chipRow(line, number) {
  const slots = slotsOf(line);
  let start = 0;
  const nodes = slots.map((slot, index) => {
    const at = start + slot.lead.length;
    start = at + slot.tag.length + slot.trail.length + 1;
    return slot.tag ? chip(slot.tag, number, index, at) : null;
  });
  const first = nodes.find(Boolean);
  if (first) first.tabIndex = 0;
  return make("div", { class: "ds-chip-row", role: "group", "aria-label": `Tags of line ${number + 1}` }, ...nodes.filter(Boolean), addField(number));
}

function chip(tag, line, index, start) {
  return make("span", { class: "ds-chip ds-edit-chip", tabindex: -1, draggable: "true", title: chipHelp, "data-line": line, "data-slot": index, "data-start": start,
      onclick: () => { clearTimeout(filtering); filtering = setTimeout(() => filterByTag(tag), 250); },
      ondblclick: () => editChip(line, index),
      onkeydown: (event) => chipKey(event, line, index, tag),
      ondragstart: (event) => { event.dataTransfer.setData("text/plain", tag); event.dataTransfer.effectAllowed = "move"; chips.dataset.dragged = `${line} ${index}`; },
      ondragover: (event) => chips.dataset.dragged?.startsWith(`${line} `) && event.preventDefault(),
      ondrop: (event) => { event.preventDefault(); dropChip(line, index); } },
    tag, button("×", (event) => { event.stopPropagation(); removeChip(line, index); }, { class: "ds-remove", tabindex: -1, "aria-label": `Remove ${tag}` }));
}

function addField(line) {
  const add = (field) => {
    const tags = field.value.split(",").map((tag) => tag.trim()).filter(Boolean);
    if (!tags.length) return;
    changeLine(line, (slots) => tags.reduce(withTag, slots));
    chips.querySelector(`.ds-add[data-line="${line}"]`)?.focus();
  };
  return make("input", { class: "ds-add", placeholder: "+ tag", "aria-label": "Add a tag", list: knownTags.id, autocomplete: "off", "data-line": line,
    onkeydown: (event) => { if (event.key === "Enter" || event.key === ",") { add(event.target); event.preventDefault(); } },
    onchange: (event) => { if (view.tags.some(([tag]) => tag === event.target.value)) add(event.target); } });
}

// Put a changed line into the text, show it everywhere, and save it as one edit.
function changeLine(line, change) {
  const lines = box.value.split("\n");
  lines[line] = joinSlots(change(slotsOf(lines[line])));
  box.value = lines.join("\n");
  typed();
  save();
}

function focusChip(line, index) {
  const nodes = [...chips.querySelectorAll(`.ds-edit-chip[data-line="${line}"]`)];
  (nodes.find((node) => Number(node.dataset.slot) >= index) ?? nodes.at(-1) ?? chips.querySelector(".ds-add"))?.focus();
}

function removeChip(line, index) {
  changeLine(line, (slots) => without(slots, index));
  focusChip(line, index);
}

function moveChip(line, from, to) {
  if (to < 0 || to >= slotsOf(box.value.split("\n")[line]).length) return;
  changeLine(line, (slots) => moved(slots, from, to));
  focusChip(line, to);
}

function dropChip(line, to) {
  const [ofLine, from] = chips.dataset.dragged.split(" ").map(Number);
  delete chips.dataset.dragged;
  if (ofLine === line && from !== to) moveChip(line, from, to);
}

function editChip(line, index) {
  clearTimeout(filtering);
  const node = chips.querySelector(`[data-line="${line}"][data-slot="${index}"]`);
  const before = slotsOf(box.value.split("\n")[line])[index].tag;
  let over = false;
  const end = (keep, then = index) => {
    if (over) return;
    over = true;
    const tag = field.value.trim();
    if (!keep || tag === before) showChips();
    else changeLine(line, (slots) => (tag ? renamed(slots, index, tag) : without(slots, index)));
    focusChip(line, then);
  };
  const shift = (by) => { end(true); moveChip(line, index, index + by); };
  const field = make("input", { class: "ds-rename", list: knownTags.id, "aria-label": `Change ${before}`, size: Math.max(6, before.length),
    onblur: () => end(true), onkeydown: (event) => {
      event.stopPropagation();
      if (event.key === "Enter") end(true);
      else if (event.key === "Escape") end(false);
    } });
  const keepFocus = { onpointerdown: (event) => event.preventDefault(), class: "ds-shift" };
  field.value = before;
  node.replaceWith(make("span", { class: "ds-renaming" },
    button("‹", () => shift(-1), { ...keepFocus, "aria-label": "Move to the left" }), field, button("›", () => shift(1), { ...keepFocus, "aria-label": "Move to the right" })));
  field.select();
}

function chipKey(event, line, index, tag) {
  if (event.target !== event.currentTarget) return;
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by && event.altKey) moveChip(line, index, index + by);
  else if (by) (by < 0 ? event.target.previousElementSibling : event.target.nextElementSibling)?.focus();
  else if (event.key === "Enter" || event.key === "F2") editChip(line, index);
  else if (event.key === "Delete" || event.key === "Backspace") removeChip(line, index);
  else if (event.key === " ") filterByTag(tag);
  else return;
  event.preventDefault();
  event.stopPropagation();
}

function markUnreadChips() {
  chips.querySelectorAll(".ds-edit-chip").forEach((node) => {
    const cut = cutOf(Number(node.dataset.line));
    node.classList.toggle("ds-past", cut != null && Number(node.dataset.start) >= cut);
  });
}
