// Painting what of the picture to start from is drawn anew, over the whole window. After dom.js and paint/paint.js.
// onsave(png) gets what was painted.
function maskDialog(onsave) {
  const painter = makePainter({ changed: () => (use.disabled = !painter?.isDirty()) });
  const use = button("Use this mask", () => { onsave(painter.png()); painter.saved(); dialog.close(); }, { class: "main", title: "Ctrl+Enter" });
  const image = make("img", { alt: "The picture to start from", draggable: "false" });
  const sheet = make("div", { class: "sheet" }, image, painter.layer);
  const dialog = make("dialog", { class: "mask-dialog", "aria-label": "Mask", onkeydown: keys, oncancel: (event) => { if (!mayLeave()) event.preventDefault(); } },
    make("div", { class: "bar" }, ...painter.bar, use, button("Close", () => mayLeave() && dialog.close())),
    make("p", { class: "quiet" }, "What is painted is drawn anew; the rest is kept."), make("div", { class: "ground", tabindex: -1 }, sheet));

  function mayLeave() {
    const may = !painter.isDirty() || confirm("The mask is not used yet. Leave it?");
    if (may) painter.saved();
    return may;
  }

  function keys(event) {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") { if (!use.disabled) use.click(); }
    else if (!painter.key(event)) return;
    event.preventDefault();
  }

  // picture: { url, painted: [width, height] }; mask: address of the one so far, or none.
  function show(picture, mask) {
    image.src = picture.url;
    sheet.style.setProperty("--ratio", picture.painted[0] / picture.painted[1]);
    painter.saved();
    painter.begin(...picture.painted);
    if (mask) painter.load(mask, false);
    dialog.showModal();
  }

  element.append(dialog);
  return show;
}
