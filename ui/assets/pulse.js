// Asks what is new for the tab that is looked at, and tells it to the scripts. Runs inside gr.HTML, after the list `send`.
const EVERY_MS = 1200; // leaves the rest of two seconds to writing events and drawing them
const MOST_HELD = 4;
let asking = false, again = false, next = 0, held = 0;

const tabShown = () => (document.querySelector("[id^='tab-'][role='tab'][aria-selected='true']")?.id || "").replace(/^tab-|-button$/g, "");
const kept = () => Object.fromEntries(READ.map((key) => [key, atelier.told.get(key)?.value()]));
const shown = (key) => atelier.told.get(key)?.element.isConnected;

async function ask() {
  again = asking; // another tab was chosen meanwhile
  if (asking) return;
  clearTimeout(next);
  if (document.visibilityState === "hidden") return void (next = setTimeout(ask, EVERY_MS)); // looks again, asks nobody
  asking = true;
  const begun = performance.now();
  try {
    const asked = { tab: tabShown(), kept: kept() };
    const found = await server.ask(asked);
    const same = JSON.stringify(kept()) === JSON.stringify(asked.kept);
    if (!same) again = true; // another run was chosen meanwhile, say: what was found is of the one before
    else if (document.querySelector("button:active") && held < MOST_HELD) held += 1; // drawn anew under the mouse it takes no click; the news are as new the next time
    else {
      held = 0;
      found.forEach(pass);
    }
  } catch {
    trigger("lost"); // Gradio notices itself, tells it and connects again
  }
  asking = false;
  next = setTimeout(ask, again ? 0 : Math.max(0, EVERY_MS - (performance.now() - begun)));
}

// What no script can show, or none that is on the page, is sent by an event of Gradio.
function pass([number, news]) {
  if (news && news.every(([key]) => shown(key))) news.forEach(([key, value]) => atelier.told.get(key).tell(value));
  else send[number]();
}

document.addEventListener("visibilitychange", ask);
new MutationObserver(ask).observe(document.body, { subtree: true, attributeFilter: ["aria-selected"] });
ask();
