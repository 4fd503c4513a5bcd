// What the dialogs share that show one picture of a table large. Runs inside gr.HTML, after dom.js.

// Settings that are read while they are unfolded; address() is where those of the picture are that is shown now.
function settingsBelow(address) {
  const facts = make("dl", { class: "sw-facts" });
  const node = make("details", { ontoggle: () => read() }, make("summary", {}, "Settings"), facts);

  async function read() {
    if (!node.open) return;
    const asked = address();
    const reply = await fetch(asked);
    const told = reply.ok ? await reply.json() : { problem: "The file is missing." };
    if (asked !== address()) return;
    facts.replaceChildren(...Object.entries(told).flatMap(([name, value]) =>
      [make("dt", {}, name.replaceAll("_", " ")), make("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))]));
  }

  return { node, read };
}

// The arrow keys call move(right, down), a click beside the dialog closes it.
function movesByKeys(dialog, move) {
  const steps = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("keydown", (event) => {
    if (!steps[event.key]) return;
    event.preventDefault();
    move(...steps[event.key]);
  });
}
