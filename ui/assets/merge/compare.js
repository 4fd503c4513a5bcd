// Two pictures of the same place: one over the other with a divider that is dragged, or side by side. Runs inside
// gr.HTML after dom.js. The divider is a range input that covers the pictures, so that keys and fingers move it too.
function makeCompare() {
  const plain = make("img", { class: "plain", hidden: true, draggable: "false" });
  const drawn = make("img", { class: "drawn", hidden: true, draggable: "false" });
  const range = make("input", { type: "range", min: 0, max: 100, value: 50, oninput: place });
  const blank = make("div", { class: "blank" });
  const labels = [make("span", { class: "label", "aria-hidden": "true" }, "Without"), make("span", { class: "label", "aria-hidden": "true" }, "With")];
  const node = make("div", { class: "pair empty" }, plain, drawn, blank, make("i", { class: "divider" }), ...labels, range);

  function place() {
    node.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % without the LoRAs`);
  }

  // A picture is shown when all of it is there: until then the one before stays.
  async function put(image, address, words) {
    image.alt = words;
    if (!address || image.dataset.wanted === address) return;
    image.dataset.wanted = address;
    const coming = new Image();
    coming.src = address;
    await coming.decode().catch(() => {}); // a live picture may be gone again: the next one comes soon
    if (image.dataset.wanted !== address || !coming.naturalWidth) return;
    image.src = address;
    image.hidden = false;
    node.style.setProperty("--shape", `${coming.naturalWidth} / ${coming.naturalHeight}`);
    node.classList.toggle("empty", plain.hidden && drawn.hidden);
  }

  function show(prompt, pictures) {
    range.setAttribute("aria-label", `Divider between the pictures without and with LoRAs: ${prompt}`);
    put(plain, pictures[0], `Without LoRAs: ${prompt}`);
    put(drawn, pictures[1], `With LoRAs: ${prompt}`);
  }

  place();
  return { node, show, addresses: () => [plain, drawn].map((image) => image.getAttribute("src")), say: (words) => (blank.textContent = words) };
}

// One pair of pictures as large as the screen allows.
function makeLarge() {
  const compare = makeCompare();
  const save = make("a", { download: true }, "Save picture");
  const dialog = make("dialog", { class: "viewer", "aria-label": "Pictures without and with LoRAs" }, compare.node,
    make("nav", {}, save, button("Close", () => dialog.close(), { "data-close": true })));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return { dialog, open(prompt, addresses) {
    compare.show(prompt, addresses);
    save.href = addresses[1];
    dialog.showModal();
  } };
}
