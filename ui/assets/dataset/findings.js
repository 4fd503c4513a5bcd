// "Show" beside a finding filters the grid. Runs inside gr.HTML.
element.addEventListener("click", (event) => {
  const finding = event.target.dataset.finding;
  if (finding === undefined) return;
  trigger("show", { finding: Number(finding) });
  document.getElementById("dataset-grid")?.scrollIntoView({ block: "start" });
});
