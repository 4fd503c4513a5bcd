// The curve of one measure over the checkpoints. Runs inside gr.HTML, after dom.js.
const SVG = "http://www.w3.org/2000/svg";
const [WIDE, HIGH, LEFT, BELOW, ROOM] = [320, 130, 8, 18, 10];

function draw(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children);
  return node;
}

function written(value, name) {
  if (value == null) return "–";
  if (name === "drift") return `${(value * 100).toPrecision(3)} %`;
  return Number.isInteger(value) ? String(value) : value.toPrecision(4);
}

function figure(column, rows) {
  const told = (value) => written(value, column.name);
  const points = rows.filter((row) => row.values[column.name] != null && !(row.base && column.name === "copies"));
  const values = points.map((row) => row.values[column.name]);
  if (points.filter((row) => !row.base).length < 2 || new Set(values).size === 1) return null;
  const steps = points.map((row) => row.step);
  const [low, high, first, last] = [Math.min(...values), Math.max(...values), Math.min(...steps), Math.max(...steps)];
  const x = (step) => LEFT + ((step - first) / (last - first || 1)) * (WIDE - 2 * LEFT);
  const y = (value) => ROOM + (1 - (value - low) / (high - low || 1)) * (HIGH - BELOW - 2 * ROOM);
  const line = points.map((row) => `${x(row.step)},${y(row.values[column.name])}`).join(" ");
  const dots = points.map((row) => draw("circle", { cx: x(row.step), cy: y(row.values[column.name]), r: row.best ? 6 : 3.5, class: row.best ? "best" : "" },
    draw("title", {}, `${row.title}: ${told(row.values[column.name])}`)));
  const label = (step, anchor) => draw("text", { x: x(step), y: HIGH - 3, "text-anchor": anchor }, step === 0 ? "base" : String(step));
  const words = `${column.title} by step, from ${told(values[0])} to ${told(values[values.length - 1])}`;
  return make("figure", {}, make("figcaption", {}, make("b", {}, column.title), make("span", {}, `${told(low)} to ${told(high)}`)),
    draw("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": words },
      draw("line", { x1: LEFT, x2: WIDE - LEFT, y1: HIGH - BELOW, y2: HIGH - BELOW, class: "axis" }),
      draw("polyline", { points: line }), ...dots, label(first, "start"), label(last, "end")));
}
