// How the runs stand, in the title of the page and as notifications of the system: also while the page is not looked at,
// when its other parts rest. One short question every few seconds; browsers slow it down to one a minute when hidden.
"use strict";
(() => {
  const NAME = "LoRA Atelier", KEY = "atelier-notify", VISIBLE_MS = 2000, IDLE_MS = 5000, HIDDEN_MS = 10000;
  const WORDS = { finished: "Done", failed: "Failed", stopped: "Stopped", paused: "Paused", queued: "Waiting" };
  const going = (run) => !["finished", "failed", "stopped", "queued"].includes(run.state);
  let before = null; // id -> state, as last told
  let over = null; // the run that ended, until somebody is at the page again

  function title(runs) {
    const run = runs.find(going);
    if (run) {
      over = null;
      const share = run.max_steps ? `${Math.floor((100 * run.step) / run.max_steps)} %` : run.state;
      return `${run.state === "paused" ? "Paused" : share} · ${run.name} · ${NAME}`;
    }
    return over ? `${WORDS[over.state]} · ${over.name} · ${NAME}` : NAME;
  }

  function heard(runs) {
    for (const run of runs) {
      const known = before && before.get(run.id);
      if (known && known !== run.state && WORDS[run.state] && ["finished", "failed", "stopped"].includes(run.state)) {
        over = run;
        tell(run);
      }
    }
    before = new Map(runs.map((run) => [run.id, run.state]));
    document.title = title(runs);
  }

  function tell(run) {
    if (!wanted() || (!hidden() && document.hasFocus())) return;
    const note = new Notification(`${WORDS[run.state]}: ${run.name}`, { body: run.error || `${run.step} steps`, tag: run.id });
    note.onclick = () => { window.focus(); note.close(); };
  }

  const hidden = () => document.visibilityState === "hidden";
  const able = () => "Notification" in window;
  const wanted = () => able() && Notification.permission === "granted" && localStorage.getItem(KEY) === "yes";

  // On a click only: browsers, and people, do not like to be asked unasked.
  async function turn() {
    if (wanted()) localStorage.setItem(KEY, "no");
    else if (able() && (await Notification.requestPermission()) === "granted") localStorage.setItem(KEY, "yes");
    return state();
  }

  function state() {
    if (!able()) return "impossible";
    if (Notification.permission === "denied") return "denied";
    return wanted() ? "on" : "off";
  }

  async function ask() {
    try {
      const answer = await fetch("/atelier/runs/now", { cache: "no-store" });
      if (answer.ok) heard((await answer.json()).runs);
    } catch { /* the program is not there just now */ }
    clearTimeout(next);
    const rests = !before || ![...before.values()].some((state) => going({ state }) || state === "queued");
    next = setTimeout(ask, hidden() ? HIDDEN_MS : rests ? IDLE_MS : VISIBLE_MS);
  }

  let next = setTimeout(ask, 0);
  document.addEventListener("visibilitychange", () => { if (!hidden()) ask(); });
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, () => {
    if (!over) return;
    over = null;
    document.title = NAME;
  }, true);
  window.atelierNotify = { state, turn };
})();
