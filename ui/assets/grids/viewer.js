// One cell large, with its settings. Runs inside gr.HTML, after dom.js and wall/large.js.
// go(name, right, down) gives the next cell's name in a direction or null; title(name) says its values; use(name) takes its settings.
const cellAddress = (grid, name, more = "") => `/atelier/grids/${encodeURIComponent(grid)}/cells/${encodeURIComponent(name)}.png${more}`;

function cellViewer(go, title, use) {
  const image = make("img", { alt: "" }), words = make("p");
  const save = make("a", { download: true }, "Save picture");
  const settings = settingsBelow(() => cellAddress(shown.grid, shown.name, "/settings"));
  const dialog = make("dialog", { class: "viewer sw-viewer", "aria-label": "Picture of the grid" }, image, words,
    make("nav", {}, button("‹", () => move(-1, 0), { "aria-label": "Column before" }), button("›", () => move(1, 0), { "aria-label": "Next column" }),
      button("↑", () => move(0, -1), { "aria-label": "Row above" }), button("↓", () => move(0, 1), { "aria-label": "Row below" }),
      button("Use these settings", () => { dialog.close(); use(shown.name); }), save, button("Close", () => dialog.close(), { "data-close": true })), settings.node);
  let shown = null;
  element.parentElement.append(dialog); // beside the component: an update of it must not close this

  function show(grid, name) {
    if (!name) return;
    shown = { grid, name };
    image.src = save.href = cellAddress(grid, name);
    save.download = `grid-${grid}-${name}.png`;
    image.alt = words.textContent = title(name);
    settings.read();
    if (!dialog.open) dialog.showModal();
  }

  const move = (right, down) => show(shown.grid, go(shown.name, right, down));

  movesByKeys(dialog, move);
  return show;
}
