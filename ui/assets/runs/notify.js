// A switch for the system's notifications. Runs inside gr.HTML, after dom.js.
const TEXTS = {
  off: ["Tell me when a run ends", ""],
  on: ["Do not tell me any more", "Your system tells you when a run ends or fails, also while this page is in the background."],
  denied: [null, "This browser blocks notifications of this page; its site settings allow them. The page's title tells it too."],
  impossible: [null, "This browser has no notifications here. The page's title tells when a run ends."],
};

function render() {
  const [label, about] = TEXTS[window.atelierNotify.state()];
  const turn = async () => { await window.atelierNotify.turn(); render(); };
  element.replaceChildren(...[label && button(label, turn), about && make("p", { class: "quiet" }, about)].filter(Boolean));
}

render();
