// From the server's answers to what the charts draw. Runs after plot.js.
// A run is { id, name, colour, answer }; `look` says what is looked at, see main.js.
const xsOf = (part, look) => (look.axis === "time" ? part.elapsed : part.steps);
const facts = (run, name) => run.answer.series[name] && run.answer.series[name].facts;
const several = (runs) => runs.length > 1;

function namesIn(runs) {
  const names = new Set(runs.flatMap((run) => Object.keys(run.answer.series)));
  const known = Object.keys(METRICS).filter((name) => names.has(name));
  return [...known, ...[...names].filter((name) => !METRICS[name]).sort()];
}

function spanOf(runs, look) {
  const spans = runs.flatMap(({ answer }) => [answer.span[look.axis === "time" ? 1 : 0], xsOf(answer.validation, look)]).filter((span) => span && span.length);
  const whole = [Math.min(...spans.map((span) => span[0])), Math.max(...spans.map((span) => span[span.length - 1]))];
  const first = look.first === null ? whole[0] : look.first, last = look.last === null ? whole[1] : look.last;
  return [first, Math.max(last, first + 1e-9)];
}

// What the chart of a group of metrics shows: "loss", or all learning rates.
function specOf(group, runs, look) {
  const names = namesIn(runs).filter((name) => groupOf(name) === group);
  const layers = runs.flatMap((run) => names.flatMap((name, number) => layersOfRun(run, name, names.length > 1 ? number : 0, runs, look)));
  const values = layers.filter((layer) => layer.ys).flatMap((layer) => layer.ys);
  const spread = look.outliers ? layers.filter((layer) => layer.kind === "band").flatMap((layer) => [...layer.low, ...layer.high]) : [];
  const log = look.log && values.some((value) => value > 0);
  const about = metric(group);
  return {
    group, layers, log, axis: look.axis, title: about.title, write: about.write, runs, names,
    shown: shownOf(runs, names, about), summary: summaryOf(runs, names, about),
    keys: keysOf(layers, runs, names), zoomed: look.first !== null,
    x: scaleOf(spanOf(runs, look)), y: scaleOf(rangeOf([...values, ...spread], { ...look, log }), log),
  };
}

function layersOfRun(run, name, number, runs, look) {
  const { answer } = run, series = answer.series[name];
  if (!series) return [];
  const xs = xsOf(answer, look), colour = several(runs) ? run.colour : number ? number : undefined;
  const breaks = series.bad ? series.bad.steps.map((step) => placeOf(answer, step, look)) : [];
  const label = several(runs) ? run.name : number ? name.replace(/^lr_/, "").replaceAll("_", " ") : undefined;
  const raw = { kind: series.smooth ? "raw" : "only", name: label || (name === "loss" ? "loss" : metric(name).title.toLowerCase()), xs, ys: series.mean, breaks, colour };
  const layers = [];
  if (series.low) layers.push({ kind: "band", xs, low: series.low, high: series.high, colour });
  layers.push(raw);
  if (series.smooth) layers.push({ kind: "smooth", name: label || "smoothed", xs, ys: series.smooth, colour });
  if (breaks.length) layers.push({ kind: "bad", xs: breaks });
  return name === "loss" ? [...layers, ...lossExtras(run, label, runs, look)] : layers;
}

function lossExtras({ answer }, label, runs, look) {
  const checks = answer.validation, span = spanOf(runs, look), colour = several(runs) ? runs.find((run) => run.answer === answer).colour : undefined;
  const xs = xsOf(checks, look);
  const inside = xs.map((_, index) => index).filter((index) => xs[index] >= span[0] && xs[index] <= span[1]);
  const extras = answer.overlaps.map((part) => ({ kind: "before", name: "done before", xs: xsOf(part, look), ys: part.loss, colour }));
  if (inside.length) extras.push({ kind: "validation", name: label ? `${label}, validation` : "validation", xs: inside.map((index) => xs[index]), ys: inside.map((index) => checks.values[index]), colour });
  const resumed = xsOf(answer.resumes, look).filter((value) => value >= span[0] && value <= span[1]);
  if (resumed.length && !several(runs)) extras.push({ kind: "mark", xs: resumed });
  return extras;
}

// Where a step lies on the axis: its time is that of the nearest point.
function placeOf(answer, step, look) {
  return look.axis === "time" ? answer.elapsed[nearest(answer.steps, step)] : step;
}

function keysOf(layers, runs, names) {
  if (several(runs)) return layers.some((layer) => layer.kind === "validation") ? [{ kind: "validation", name: "validation" }] : [];
  if (names.length > 1) return layers.filter((layer) => layer.kind === "only").map((layer) => ({ kind: "smooth", name: layer.name, colour: layer.colour }));
  const words = { raw: "each step", smooth: "smoothed", validation: "validation", before: "before it was resumed", bad: "not a number" };
  const kinds = [...new Set(layers.map((layer) => layer.kind))].filter((kind) => words[kind]);
  return kinds.length > 1 ? kinds.map((kind) => ({ kind, name: words[kind] })) : [];
}

function shownOf(runs, names, about) {
  if (several(runs) || names.length > 1) return "";
  const known = facts(runs[0], names[0]);
  return known ? about.write(known.last[0]) : "";
}

function summaryOf(runs, names, about) {
  const parts = runs.flatMap((run) => names.map((name) => [run, facts(run, name)])).filter(([, known]) => known).map(([run, { low, high, last }]) =>
    `${several(runs) ? `${run.name}: ` : ""}${about.write(last[0])} at step ${last[1]}, lowest ${about.write(low[0])} at step ${low[1]}, highest ${about.write(high[0])} at step ${high[1]}`);
  return `${about.title}. ${parts.join("; ")}. Arrow keys read values, plus and minus zoom, Escape shows all.`;
}

// The lines of the readout at a place on the axis: [text, colour] pairs, and the step they belong to.
function valuesAt(spec, at) {
  const lines = [];
  for (const layer of spec.layers) {
    if (!layer.name || layer.kind === "before") continue;
    const index = nearestTold(layer, at, spec.x);
    if (index >= 0) lines.push([`${several(spec.runs) && layer.kind === "raw" ? `${layer.name}, each step` : layer.name} ${spec.write(layer.ys[index])}`, layer]);
  }
  const { answer } = spec.runs[0];
  const index = nearest(spec.axis === "time" ? answer.elapsed : answer.steps, at);
  return { step: answer.steps[index], elapsed: answer.elapsed[index], lines };
}

// Values that are told now and then are shown only near where they were told.
function nearestTold(layer, at, scale) {
  let index = nearest(layer.xs, at);
  if (layer.kind !== "validation") while (index > 0 && layer.ys[index] === null) index -= 1;
  const far = layer.kind === "validation" && Math.abs(scale.place(layer.xs[index]) - scale.place(at)) > 0.03;
  return index < 0 || far || layer.ys[index] === null ? -1 : index;
}
