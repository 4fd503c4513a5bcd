// How far a job in the background is, in an element. Runs after dom.js, in the scope of one gr.HTML.
// `words` are for its states; those of a running one are told until there is something to count.
// Nothing is shown of a finished one: what it found is.
function tellJob(place, now, words, label) {
  place.replaceChildren();
  if (!now || now.state === "finished") return;
  const running = now.state === "running";
  const counted = running && now.total && `${now.what} ${now.done} of ${now.total}${now.left ? `, about ${now.left} left` : ""}`;
  place.append(make("p", { class: `job ${now.state}` }, counted || words[now.state], running ? button("Cancel", () => trigger("cancel", { job: now.id })) : null));
  if (running) place.append(make("progress", { "aria-label": label, ...(now.total ? { value: now.done, max: now.total } : {}) }));
  [...now.problems, ...now.warnings].forEach((text) => place.append(make("p", { class: "detail" }, text)));
}
