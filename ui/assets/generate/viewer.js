// One picture large, with its settings and what can be done with it. Runs inside gr.HTML, after dom.js.
// next(card, by) gives the one before or after it, or a promise of it; acts: use(card, how), star(card), discard(card).
function pictureViewer(next, acts) {
  const image = make("img", { alt: "" });
  const words = make("p", { class: "words" });
  const facts = make("dl", { class: "facts" });
  const star = button("", () => acts.star(shown), { title: "Key F" });
  const save = make("a", { download: true }, "Save picture");
  const use = (text, how, title) => button(text, () => { dialog.close(); acts.use(shown, how); }, { title });
  const dialog = make("dialog", { class: "viewer gp-viewer", "aria-label": "Picture", onclick: (event) => event.target === dialog && dialog.close(), onkeydown: keys },
    make("div", { class: "gp-sides" }, make("div", { class: "gp-picture" }, image), make("div", { class: "gp-about" }, words, facts)),
    make("nav", {}, button("‹", () => move(-1), { "aria-label": "Previous" }), button("›", () => move(1), { "aria-label": "Next" }), star,
      use("Use these settings", "all", "The whole form as it was for this picture"), use("Use its seed", "seed", "The form keeps the rest"),
      use("Vary", "vary", "Draw with these settings and another seed"), use("Draw larger", "larger", "Draw it again with a second pass at twice the size"),
      use("Start from this", "source", "The next picture begins with this one"), save,
      button("Delete", () => acts.discard(shown), { title: "Key Delete" }), button("Close", () => dialog.close(), { "data-close": true })));
  let shown = null;
  element.append(dialog);

  function show(card) {
    if (!card) return;
    shown = card;
    if (image.getAttribute("src") !== card.url) image.src = card.url;
    image.alt = words.textContent = card.words;
    facts.replaceChildren(...card.facts.filter(([name]) => name !== "Prompt").flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
    star.textContent = card.star ? "★ Favourite" : "☆ Favourite";
    star.setAttribute("aria-pressed", String(card.star));
    save.href = card.url;
    save.download = card.name;
    dialog.querySelectorAll("nav button[title]").forEach((each) => (each.disabled = each.title.startsWith("Key") ? false : !card.facts.length));
    if (!dialog.open) dialog.showModal();
  }

  async function move(by) {
    show(await next(shown, by));
  }

  function keys(event) {
    const commands = { ArrowRight: () => move(1), ArrowLeft: () => move(-1), f: () => acts.star(shown), Delete: () => acts.discard(shown) };
    const command = event.ctrlKey || event.metaKey || event.altKey ? null : commands[event.key];
    if (!command) return;
    event.preventDefault();
    command();
  }

  return { show, close: () => dialog.close(), shown: () => (dialog.open ? shown : null) };
}
