// Charts: the values under the pointer, and dragging out a stretch of steps to look at. Runs inside gr.HTML.
const at = (figure, clientX) => {
  const box = figure.querySelector("svg").getBoundingClientRect();
  return Math.min(1, Math.max(0, (clientX - box.left) / box.width));
};
const stepAt = (figure, share) =>
  Math.round(Number(figure.dataset.first) + share * (figure.dataset.last - figure.dataset.first));
const short = (value) => (value !== 0 && Math.abs(value) < 0.001 ? value.toExponential(1) : Number(value.toPrecision(4)).toString());

function nearest(line, x) {
  let best = null;
  for (const pair of line.getAttribute("points").split(" ")) {
    const [px, py] = pair.split(",").map(Number);
    if (best === null || Math.abs(px - x) < Math.abs(best[0] - x)) best = [px, py];
  }
  return best;
}

function showReadout(figure, share) {
  const readout = figure.querySelector(".readout");
  const low = Number(figure.dataset.low), high = Number(figure.dataset.high);
  const parts = [`<b>step ${stepAt(figure, share)}</b>`];
  figure.querySelectorAll("polyline").forEach((line) => {
    const [, y] = nearest(line, share * 1000);
    parts.push(`<span>${line.dataset.name} ${short(high - (y / 1000) * (high - low))}</span>`);
  });
  readout.innerHTML = parts.join("");
  readout.hidden = false;
  readout.style.left = `${share * 100}%`;
  readout.classList.toggle("flip", share > 0.6);
}

let dragged = null; // {from, to} as shares of the width of the large chart
element.addEventListener("pointermove", (event) => {
  const figure = event.target.closest && event.target.closest(".chart");
  if (!figure || !event.target.closest(".drawing")) return;
  const share = at(figure, event.clientX);
  showReadout(figure, share);
  if (dragged && figure.classList.contains("large")) {
    dragged.to = share;
    mark(figure);
  }
});
element.addEventListener("pointerleave", () => {
  dragged = null;
  element.querySelectorAll(".readout").forEach((readout) => (readout.hidden = true));
  element.querySelectorAll(".selection").forEach((old) => old.remove());
});
element.addEventListener("pointerdown", (event) => {
  const drawing = event.target.closest(".chart.large .drawing");
  if (drawing && event.pointerType === "mouse") dragged = { from: at(drawing.closest(".chart"), event.clientX) };
});
element.addEventListener("pointerup", (event) => {
  const figure = element.querySelector(".chart.large");
  const done = dragged;
  dragged = null;
  if (!figure || !done || done.to === undefined || Math.abs(done.to - done.from) < 0.02) return mark(figure, true);
  const [first, last] = [done.from, done.to].sort((a, b) => a - b).map((share) => stepAt(figure, share));
  trigger("zoom", { first, last });
});
element.addEventListener("dblclick", (event) => {
  if (event.target.closest(".chart.large .drawing")) trigger("zoom", { first: null, last: null });
});
element.addEventListener("click", (event) => {
  if (event.target.closest(".unzoom")) trigger("zoom", { first: null, last: null });
});

function mark(figure, remove) {
  if (!figure) return;
  let box = figure.querySelector(".selection");
  if (remove || !dragged) return box && box.remove();
  if (!box) {
    box = document.createElement("div");
    box.className = "selection";
    figure.querySelector(".drawing").append(box);
  }
  box.style.left = `${Math.min(dragged.from, dragged.to) * 100}%`;
  box.style.width = `${Math.abs(dragged.to - dragged.from) * 100}%`;
}
