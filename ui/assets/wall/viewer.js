// Preview pictures and looking at one of them large. Runs inside gr.HTML, after dom.js and large.js.
// A picture is { run, name, stamp, prompt, step }; null where there is none.
const addressOf = (picture, more = "") => `/atelier/runs/${encodeURIComponent(picture.run)}/samples/${encodeURIComponent(picture.name)}${more}`;
const largeOf = (picture) => addressOf(picture, `?v=${picture.stamp}`);
const smallOf = (picture) => addressOf(picture, `?v=${picture.stamp}&thumbnail`);
const stepName = (step) => (step === 0 ? "before" : `step ${step}`);

// onopen(picture) is told which was pressed. What is missing on the disk says so in its place.
function pictureButton(picture, onopen) {
  if (!picture) return make("span", { class: "sw-none", "aria-label": "no picture" });
  const image = make("img", { src: smallOf(picture), alt: "", loading: "lazy", decoding: "async", width: 128, height: 128 });
  const node = make("button", { type: "button", class: "sw-picture", "aria-label": `${picture.prompt}, ${stepName(picture.step)}`, title: picture.prompt, onclick: () => onopen(picture) }, image);
  image.onerror = () => node.replaceWith(make("span", { class: "sw-none", title: picture.name }, "The file is missing"));
  return node;
}

// go(picture, right, down) gives the next picture in a direction, first(picture) the one before training; null for none.
function makeViewer(go, first) {
  const image = make("img", { alt: "" }), before = make("img", { alt: "Before training" });
  const caption = make("span"), where = make("b");
  const save = make("a", { download: true }, "Save picture");
  const compare = button("Beside the start", () => { beside = !beside; show(shown); }, { "aria-pressed": "false", title: "Key: b" });
  const settings = settingsBelow(() => addressOf(shown, "/settings"));
  const dialog = make("dialog", { class: "viewer sw-viewer", "aria-label": "Preview picture" }, make("div", { class: "sw-pair" }, before, image), make("p", {}, where, " ", caption),
    make("nav", {}, button("‹", () => move(-1, 0), { "aria-label": "Earlier step" }), button("›", () => move(1, 0), { "aria-label": "Later step" }),
      button("↑", () => move(0, -1), { "aria-label": "Previous prompt" }), button("↓", () => move(0, 1), { "aria-label": "Next prompt" }),
      compare, save, button("Close", () => dialog.close(), { "data-close": true })), settings.node);
  let shown = null, beside = false;
  element.parentElement.append(dialog); // beside the component: an update of it must not close this

  function show(picture) {
    if (!picture) return;
    shown = picture;
    const start = first(picture);
    image.src = largeOf(picture);
    image.alt = caption.textContent = picture.prompt;
    const words = `${picture.label ? `${picture.label}, ` : ""}${stepName(picture.step)}:`;
    where.textContent = words[0].toUpperCase() + words.slice(1);
    save.href = largeOf(picture);
    save.download = picture.name;
    compare.hidden = !start;
    compare.setAttribute("aria-pressed", String(beside));
    before.hidden = !beside || !start || start.name === picture.name;
    if (!before.hidden) before.src = largeOf(start);
    settings.read();
    if (!dialog.open) dialog.showModal();
  }

  const move = (right, down) => show(go(shown, right, down));

  movesByKeys(dialog, move);
  dialog.addEventListener("keydown", (event) => event.key === "b" && !compare.hidden && compare.click());
  return show;
}
