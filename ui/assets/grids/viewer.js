// One cell large, with its settings. Runs inside gr.HTML, after dom.js.
// go(name, right, down) gives the next cell's name in a direction or null; title(name) says its values; use(name) takes its settings.
const cellAddress = (grid, name, more = "") => `/atelier/grids/${encodeURIComponent(grid)}/cells/${encodeURIComponent(name)}.png${more}`;

function cellViewer(go, title, use) {
  const image = make("img", { alt: "" }), words = make("p"), facts = make("dl", { class: "sw-facts" });
  const save = make("a", { download: true }, "Save picture");
  const settings = make("details", { ontoggle: () => settings.open && read() }, make("summary", {}, "Settings"), facts);
  const dialog = make("dialog", { class: "viewer sw-viewer", "aria-label": "Picture of the grid" }, image, words,
    make("nav", {}, button("‹", () => move(-1, 0), { "aria-label": "Column before" }), button("›", () => move(1, 0), { "aria-label": "Next column" }),
      button("↑", () => move(0, -1), { "aria-label": "Row above" }), button("↓", () => move(0, 1), { "aria-label": "Row below" }),
      button("Use these settings", () => { dialog.close(); use(shown.name); }), save, button("Close", () => dialog.close(), { "data-close": true })), settings);
  let shown = null;
  element.parentElement.append(dialog); // beside the component: an update of it must not close this

  function show(grid, name) {
    if (!name) return;
    shown = { grid, name };
    image.src = save.href = cellAddress(grid, name);
    save.download = `grid-${grid}-${name}.png`;
    image.alt = words.textContent = title(name);
    if (settings.open) read();
    if (!dialog.open) dialog.showModal();
  }

  const move = (right, down) => show(shown.grid, go(shown.name, right, down));

  async function read() {
    const asked = shown;
    const reply = await fetch(cellAddress(asked.grid, asked.name, "/settings"));
    const told = reply.ok ? await reply.json() : { problem: "The file is missing." };
    if (asked !== shown) return;
    facts.replaceChildren(...Object.entries(told).flatMap(([name, value]) =>
      [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]));
  }

  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    const keys = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
    if (keys[event.key]) { event.preventDefault(); move(...keys[event.key]); }
  });
  return show;
}
