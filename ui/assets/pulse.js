// Asks what is new for the tab that is looked at, and has only that sent. Runs inside gr.HTML, after the list `send`.
const EVERY_MS = 1200; // leaves the rest of two seconds to writing events and drawing them
let asking = false, again = false, next = 0;

const tabShown = () => (document.querySelector("[id^='tab-'][role='tab'][aria-selected='true']")?.id || "").replace(/^tab-|-button$/g, "");
const kept = () => Object.fromEntries([...atelier.kept].map(([key, value]) => [key, value()]));

async function ask() {
  again = asking; // another tab was chosen meanwhile
  if (asking) return;
  clearTimeout(next);
  if (document.visibilityState === "hidden") return void (next = setTimeout(ask, EVERY_MS)); // looks again, asks nobody
  asking = true;
  const begun = performance.now();
  try {
    (await server.ask({ tab: tabShown(), kept: kept() })).forEach((number) => send[number]());
  } catch {
    trigger("lost"); // Gradio notices itself, tells it and connects again
  }
  asking = false;
  next = setTimeout(ask, again ? 0 : Math.max(0, EVERY_MS - (performance.now() - begun)));
}

document.addEventListener("visibilitychange", ask);
new MutationObserver(ask).observe(document.body, { subtree: true, attributeFilter: ["aria-selected"] });
ask();
