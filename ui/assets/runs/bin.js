// What was deleted: bringing it back, or letting it go for good. Runs inside gr.HTML, after dom.js.
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
let seen = "";
let unfolded = false;
let asking = ""; // an item's id, or "all": what is about to be deleted for good

function receive() {
  const value = JSON.stringify(props.value || {});
  if (value === seen) return;
  seen = value;
  asking = "";
  render();
}

function render() {
  const { items = [], size = "" } = props.value || {};
  if (items.length === 0) return element.replaceChildren();
  const fold = make("details", { open: unfolded, ontoggle: () => { unfolded = fold.open; } },
    make("summary", {}, `Bin: ${items.length === 1 ? "1 thing" : `${items.length} things`}, ${size}`),
    make("ul", {}, ...items.map(line)),
    make("div", { class: "buttons" }, asking === "all" ? sure("all of it", () => trigger("empty")) : button("Empty the bin", () => ask("all"), { class: "danger" })));
  element.replaceChildren(fold);
}

function line({ id, title, kind, size, deleted }) {
  const name = make("span", { class: "step" }, title, make("small", {}, `${kind}, ${size}, deleted ${moment.format(deleted * 1000)}`));
  const actions = make("span", { class: "actions" },
    button("Restore", once(() => trigger("restore", { id }))),
    button("Delete for good", () => ask(id), { class: "danger" }));
  return make("li", {}, name, asking === id ? sure(title, once(() => trigger("remove", { id }))) : actions);
}

function ask(id) {
  asking = id;
  render();
  element.querySelector(".question button").focus();
}

function sure(what, yes) {
  return make("div", { class: "question" }, make("span", {}, `Delete ${what} for good? This cannot be undone.`),
    button("Delete", yes, { class: "danger" }), button("Keep", () => { asking = ""; render(); }));
}

watch("value", receive);
receive();
