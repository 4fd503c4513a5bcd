// Saving the large chart as SVG or PNG: the same drawing with its labels, in the page's colours. Runs after plot.js.
const PICTURE = { width: 1200, height: 560, left: 80, right: 24, top: 56, bottom: 46 };
const DRAWN_WITH = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "stroke-linejoin", "stroke-linecap"];

function pictureOf(chart) {
  const { width, height, left, right, top, bottom } = PICTURE, { spec } = chart;
  const inner = [width - left - right, height - top - bottom];
  const rows = spec.log ? logTicks(spec.y.low, spec.y.high, 6) : ticks(spec.y.low, spec.y.high, 6);
  const columns = ticks(spec.x.low, spec.x.high, 10, spec.axis === "time");
  const colours = getComputedStyle(chart.figure), ink = colours.color, ground = getComputedStyle(document.body).backgroundColor;
  const text = (x, y, words, anchor, size = 14) => {
    const node = svg("text", { x, y, "text-anchor": anchor, "font-size": size, "font-family": "sans-serif", fill: ink });
    node.textContent = words;
    return node;
  };
  const layers = layersOf(spec, rows, ...inner);
  const part = svg("svg", { x: left, y: top, width: inner[0], height: inner[1], overflow: "hidden" }, ...layers);
  const keys = several(spec.runs) ? spec.runs.map((run) => ({ name: run.name, colour: run.colour })) : spec.keys;
  const picture = svg("svg", { xmlns: "http://www.w3.org/2000/svg", width, height, viewBox: `0 0 ${width} ${height}` },
    svg("rect", { width, height, fill: ground }),
    text(left, 28, spec.title, "start", 20),
    text(width - right, 28, several(spec.runs) ? "" : spec.runs[0].name, "end"),
    ...rows.map((row) => text(left - 8, top + (1 - spec.y.place(row)) * inner[1] + 5, short(row), "end")),
    ...columns.map((column) => text(left + spec.x.place(column) * inner[0], height - bottom + 22, spec.axis === "time" ? duration(column) : String(column), "middle")),
    ...keys.map((key, index) => text(left + index * (inner[0] / keys.length), 47, key.name, "start", 13)),
    part);
  styleAsShown(chart, picture, part, keys);
  return picture;
}

// Style sheets do not travel with a file: what they say is written on each element.
function styleAsShown(chart, picture, part, keys) {
  chart.canvas.append(part);
  for (const node of part.children) {
    const style = getComputedStyle(node);
    DRAWN_WITH.forEach((name) => node.setAttribute(name, style.getPropertyValue(name)));
  }
  part.remove();
  picture.append(part);
  [...part.children].forEach((node) => node.removeAttribute("style"));
  const texts = [...picture.querySelectorAll("text")].slice(-keys.length);
  keys.forEach((key, index) => key.colour !== undefined && texts[index].setAttribute("fill", getComputedStyle(chart.figure).getPropertyValue(`--run-${key.colour}`)));
}

function saveAs(address, name) {
  make("a", { href: address, download: name }).click();
}

const svgAddress = (chart) => URL.createObjectURL(new Blob([new XMLSerializer().serializeToString(pictureOf(chart))], { type: "image/svg+xml" }));

function saveSvg(chart, name) {
  saveAs(svgAddress(chart), `${name}.svg`);
}

function savePng(chart, name) {
  const image = new Image();
  image.onload = () => {
    const canvas = make("canvas", { width: PICTURE.width * 2, height: PICTURE.height * 2 });
    canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
    canvas.toBlob((blob) => saveAs(URL.createObjectURL(blob), `${name}.png`));
  };
  image.src = svgAddress(chart);
}
