// Two pictures of the same place: one over the other with a divider that is dragged, or side by side. Runs inside
// gr.HTML after dom.js. The divider is a range input that covers the pictures, so that keys and fingers move it too.
function makeCompare() {
  const images = Object.fromEntries(["plain", "drawn"].map((which) => [which, make("img", { class: which, hidden: true })]));
  const range = make("input", { type: "range", min: 0, max: 100, value: 50, oninput: place });
  const blank = make("div", { class: "blank" });
  const labels = ["Without", "With"].map((text) => make("span", { class: "label", "aria-hidden": "true" }, text));
  const node = make("div", { class: "pair empty" }, images.plain, images.drawn, blank, make("i", { class: "divider" }), ...labels, range);
  const wanted = {};

  function place() {
    node.style.setProperty("--at", `${range.value}%`);
    range.setAttribute("aria-valuetext", `${range.value} % without the LoRAs`);
  }

  // A picture is shown when all of it is there: until then the one before stays.
  async function put(which, address, words) {
    if (!address || wanted[which] === address) return;
    wanted[which] = address;
    const coming = make("img", { class: which, src: address, alt: words, draggable: "false" });
    await coming.decode().catch(() => {}); // a live picture may be gone again: the next one comes soon
    if (wanted[which] !== address || !coming.naturalWidth) return;
    images[which].replaceWith(coming);
    images[which] = coming;
    node.style.setProperty("--shape", `${coming.naturalWidth} / ${coming.naturalHeight}`);
    node.classList.remove("empty");
  }

  // Settles when they are there to be seen.
  function show(prompt, pictures) {
    range.setAttribute("aria-label", `Divider between the pictures without and with LoRAs: ${prompt}`);
    return Promise.all([put("plain", pictures[0], `Without LoRAs: ${prompt}`), put("drawn", pictures[1], `With LoRAs: ${prompt}`)]);
  }

  place();
  return { node, show, addresses: () => [images.plain, images.drawn].map((image) => image.getAttribute("src")), say: (words) => (blank.textContent = words) };
}

// One pair of pictures as large as the screen allows, until it is closed.
function openLarge(prompt, addresses) {
  const compare = makeCompare();
  const dialog = make("dialog", { class: "viewer", "aria-label": "Pictures without and with LoRAs", onclose: () => dialog.remove() }, compare.node,
    make("nav", {}, make("a", { download: true, href: addresses[1] }, "Save picture"), button("Close", () => dialog.close(), { "data-close": true })));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  compare.show(prompt, addresses);
  element.append(dialog);
  dialog.showModal();
}
