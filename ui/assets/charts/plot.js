// One chart: an SVG that is stretched to the space there is, with its labels as text beside it. Runs after scale.js.
// What it draws: { title, shown, keys, x, y, log, axis, layers, notes, zoomed }, see figures.js.
function svg(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function makeChart(large) {
  const title = large ? make("b") : button("", () => chart.onenlarge(), { class: "enlarge", title: "Show large" });
  const shown = make("span"), keys = make("span", { class: "keys" });
  const left = make("div", { class: "left", "aria-hidden": "true" }), below = make("div", { class: "below", "aria-hidden": "true" });
  const readout = make("div", { class: "readout", hidden: true }), cursor = make("i", { class: "cursor", hidden: true });
  const canvas = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const drawing = make("div", { class: "drawing", tabindex: 0, role: "application", "aria-roledescription": "chart" }, canvas, cursor, readout);
  const plot = make("div", { class: "plot" }, left, drawing, below);
  const figure = make("figure", { class: `chart ${large ? "large" : "small"}` }, make("figcaption", {}, title, shown, keys), plot);
  const chart = { figure, drawing, readout, cursor, canvas, large, spec: null, width: 600, onenlarge: () => {}, measure, draw };
  let seen = false, stale = false, drawnFor = null; // one that is scrolled away is drawn for each run, and anew when it comes

  new IntersectionObserver(([{ isIntersecting }]) => {
    seen = isIntersecting;
    if (seen && stale) drawCurves();
  }, { rootMargin: "100px" }).observe(figure);

  // Before any chart is drawn: the browser lays the page out anew for each that is measured after another was drawn.
  function measure() {
    chart.width = drawing.clientWidth || chart.width;
  }

  function draw(spec) {
    chart.spec = spec;
    title.textContent = spec.title;
    shown.textContent = spec.shown;
    drawing.setAttribute("aria-label", spec.summary);
    keys.replaceChildren(...(large ? spec.keys : spec.keys.filter((key) => key.colour !== undefined)).map((key) => make("span", { class: `key ${key.kind}`, style: colourOf(key) }, key.name)));
    stale = true;
    if (seen || drawnFor !== idsIn(spec)) drawCurves();
  }

  function drawCurves() {
    const { spec } = chart;
    stale = false;
    drawnFor = idsIn(spec);
    const rows = spec.log ? logTicks(spec.y.low, spec.y.high, large ? 5 : 3) : ticks(spec.y.low, spec.y.high, large ? 5 : 3);
    const columns = ticks(spec.x.low, spec.x.high, Math.max(3, Math.floor(chart.width / 80)), spec.axis === "time");
    left.replaceChildren(...rows.map((row) => make("span", { style: `top:${(1 - spec.y.place(row)) * 100}%` }, short(row))));
    below.replaceChildren(...columns.filter((column) => spec.axis === "time" || Number.isInteger(column)).map((column) =>
      make("span", { style: `left:${spec.x.place(column) * 100}%` }, spec.axis === "time" ? duration(column) : String(column))));
    canvas.replaceChildren(...layersOf(spec, rows, SIDE, SIDE));
  }
  return chart;
}

const idsIn = ({ runs }) => runs.map((run) => run.id).join();
const colourOf = (of) => (of.colour === undefined ? "" : `--line: var(--run-${of.colour})`);

// The SVG elements of a chart in a space of its own, used on the page and for saving.
function layersOf(spec, rows, width, height) {
  const x = (value) => (spec.x.place(value) * width).toFixed(1);
  const y = (value) => ((1 - Math.min(1, Math.max(0, spec.y.place(value)))) * height).toFixed(1);
  const grid = rows.map((row) => svg("line", { class: "row", x1: 0, x2: width, y1: y(row), y2: y(row) }));
  return [...grid, ...spec.layers.map((layer) => layerOf(layer, x, y, height))];
}

function layerOf(layer, x, y, height) {
  const style = colourOf(layer);
  if (layer.kind === "band") {
    const there = layer.xs.map((_, index) => index).filter((index) => layer.high[index] !== null && layer.low[index] !== null);
    const points = [...there.map((index) => `${x(layer.xs[index])},${y(layer.high[index])}`), ...there.reverse().map((index) => `${x(layer.xs[index])},${y(layer.low[index])}`)];
    return svg("polygon", { class: "band", style, points: points.join(" ") });
  }
  if (layer.kind === "mark" || layer.kind === "bad") {
    const top = layer.kind === "mark" ? 0 : height * 0.96;
    return svg("path", { class: layer.kind, style, d: layer.xs.map((value) => `M${x(value)},${top}V${height}`).join("") });
  }
  const { d, count } = pathOf(layer, x, y);
  return svg("path", { class: `line ${layer.kind}`, style, d, "data-name": layer.name, "data-points": count });
}

// A line over the values that were told; it is broken where one was not a number. A lone point is a dot.
function pathOf({ xs, ys, breaks = [] }, x, y) {
  let d = "", count = 0, at = 0, move = true, lone = "";
  xs.forEach((value, index) => {
    while (at < breaks.length && breaks[at] <= value) {
      move = true;
      at += 1;
    }
    if (ys[index] === null || ys[index] === undefined) return;
    const point = `${x(value)},${y(ys[index])}`;
    d += move ? `${lone}M${point}` : `L${point}`;
    lone = move ? "h0.1" : "";
    move = false;
    count += 1;
  });
  return { d: d + lone, count };
}
