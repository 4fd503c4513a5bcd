// What the page does without asking the server: opening, theme, folding, problems beside their fields.
"use strict";
window.atelier = (() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");

  // "light", "dark" or "system"; kept in the browser too, so that the next page starts in it.
  function setTheme(theme) {
    if (!theme) return;
    localStorage.setItem("atelier-theme", theme);
    document.body.classList.toggle("dark", theme === "dark" || (theme === "system" && dark.matches));
  }

  function toggleSection(key, open) {
    const section = document.getElementById(`section-${key}`);
    if (!section) return;
    section.classList.toggle("open", open);
    markFold(section);
  }

  function markFold(section) {
    const button = document.getElementById(section.id.replace("section-", "fold-"));
    if (button) button.setAttribute("aria-expanded", String(section.classList.contains("open")));
  }

  // The list of problems is made by the server; each is repeated beside its field and its section is unfolded.
  let shownProblems = "";
  let shownPlaces = "";
  function watchProblems() {
    const list = document.getElementById("form-problems");
    const text = list ? list.innerHTML : ""; // Gradio changes the list in place: the element stays the same
    const places = list ? [...list.children].map((item) => placeOf(item.dataset.field)?.id).join() : ""; // a folder's row may come after its problem
    const isNew = text !== shownProblems;
    if (!isNew && places === shownPlaces) return;
    shownProblems = text;
    shownPlaces = places;
    placeProblems(isNew && list !== null && list.dataset.move === "true");
  }

  function placeProblems(moveThere) {
    document.querySelectorAll(".field-problem").forEach((old) => old.remove());
    document.querySelectorAll("[aria-invalid='true']").forEach((old) => {
      old.removeAttribute("aria-invalid");
      old.removeAttribute("aria-describedby");
    });
    let first = null;
    document.querySelectorAll("#form-problems li").forEach((item, number) => {
      const place = placeOf(item.dataset.field);
      if (!place) return;
      const text = document.createElement("p");
      text.className = "field-problem";
      text.id = `field-problem-${number}`;
      text.textContent = [...item.childNodes].filter((node) => node.nodeName !== "BUTTON").map((node) => node.textContent).join("").trim();
      place.append(text);
      place.querySelectorAll("input, textarea").forEach((input) => {
        input.setAttribute("aria-invalid", "true");
        input.setAttribute("aria-describedby", text.id);
      });
      unfold(place);
      const button = item.querySelector("button");
      if (button) button.onclick = () => showSetting(item.dataset.field);
      first = first || place;
    });
    if (first && moveThere) goTo(first);
  }

  // "dataset.sources.0.path" stands beside that cell, else that setting, else its section.
  function placeOf(name) {
    const parts = (name || "").split(".");
    for (let length = parts.length; length > 0; length--) {
      const found = document.getElementById(`field-${parts.slice(0, length).join("-")}`);
      if (found) return found;
    }
    return parts[0] ? document.getElementById(`section-${parts[0]}`) : null;
  }

  function unfold(place) {
    const folders = place.closest(".folded") && place.closest(".sources");
    if (folders) {
      folders.classList.add("open");
      markFold(folders);
    }
    const section = place.closest(".section");
    if (section && place.closest(".more")) {
      section.classList.add("open");
      markFold(section);
    }
  }

  // A setting by its dotted name, wherever it is folded away.
  function showSetting(name) {
    document.dispatchEvent(new Event("atelier-end-search"));
    const place = placeOf(name);
    if (!place) return;
    unfold(place);
    goTo(place);
  }

  function goTo(place) {
    place.scrollIntoView({ block: "center", behavior: "auto" });
    const input = place.querySelector("input, textarea");
    if (input) input.focus({ preventScroll: true });
  }

  // Gradio tells its "input" on key presses alone: pasting, deleting and dictating would go unheard. Each of those
  // is followed by a key press of no key, which Gradio's text fields take for one.
  let typedInto = null;
  document.addEventListener("keypress", (event) => {
    if (!event.isTrusted) return;
    typedInto = event.target;
    setTimeout(() => (typedInto = null), 0);
  }, true);
  document.addEventListener("input", (event) => {
    const field = event.target;
    if (field === typedInto || !field.matches("[data-testid='textbox'], [data-testid='number-input'], .block textarea")) return;
    field.dispatchEvent(new KeyboardEvent("keypress"));
  });
  dark.addEventListener("change", () => setTheme(localStorage.getItem("atelier-theme")));
  // Gradio fills a new field twice: when it is made, and some frames later, which takes away what was typed between.
  // So a field is not shown before that is over.
  const FIELDS = ".block :is(input, textarea):not(.html-container *)";
  const FRAMES = 3; // one more than it takes
  let framesLeft = 0;
  function hideNewFields(changes) {
    const fields = changes.flatMap(({ addedNodes }) => [...addedNodes]).flatMap((node) => {
      if (!node.querySelectorAll) return [];
      return node.matches(FIELDS) ? [node] : [...node.querySelectorAll(FIELDS)];
    });
    if (!fields.length) return;
    fields.forEach((field) => (field.dataset.coming = ""));
    if (!framesLeft) requestAnimationFrame(countFrame);
    framesLeft = FRAMES;
  }

  function countFrame() {
    framesLeft -= 1;
    if (framesLeft) requestAnimationFrame(countFrame);
    else document.querySelectorAll("[data-coming]").forEach((field) => delete field.dataset.coming);
  }

  // Until the server has filled in what was open last, the page takes no input: the late answer would overwrite it.
  function opened() {
    document.body.inert = false;
    document.body.classList.remove("opening");
    const comparison = new URLSearchParams(location.search).has("compare"); // an address that somebody shared
    if (comparison) document.getElementById("tab-runs-button")?.click();
  }

  function begin() {
    document.body.inert = true;
    document.body.classList.add("opening");
    setTheme(localStorage.getItem("atelier-theme"));
    new MutationObserver(watchProblems).observe(document.body, { childList: true, characterData: true, subtree: true });
    new MutationObserver(hideNewFields).observe(document.body, { childList: true, subtree: true });
  }
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", begin);
  else begin();
  const told = new Map(); // key -> what tells a component its value, see told.js
  return { told, opened, placeOf, setTheme, showSetting, toggleSection };
})();
