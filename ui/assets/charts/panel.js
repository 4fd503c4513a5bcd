// The charts of one or several runs with their controls. Runs after pointer.js and export.js.
// show([{ id, name, colour }]) reads the runs anew; what is looked at stays from run to run.
const POINTS = { most: 600, least: 150 };

function makePanel() {
  const look = { axis: "step", first: null, last: null, log: false, outliers: false, keep: null, metric: "loss", hidden: new Set() };
  let runs = [], reading = false, again = false;
  const large = makeChart(true), small = new Map(); // group -> chart
  const said = make("p", { class: "unseen", role: "status" });
  const host = { charts: () => [large, ...small.values()], zoom, said: (text) => (said.textContent = text) };
  listen(large, host);

  const choice = make("select", { "aria-label": "Curve", onchange: () => enlarge(choice.value) });
  const smoothing = make("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "Smoothing", oninput: smooth });
  const amount = make("output");
  const usual = button("usual", () => { look.keep = null; read(); }, { class: "link", title: "As the program would smooth it", hidden: true });
  const axis = make("select", { "aria-label": "Axis", onchange: () => { Object.assign(look, { axis: axis.value, first: null, last: null }); read(); } },
    make("option", { value: "step" }, "Steps"), make("option", { value: "time" }, "Training time"));
  const tick = (name, text, title) => make("label", { title }, make("input", { type: "checkbox", onchange: (event) => { look[name] = event.target.checked; draw(); } }), text);
  const all = button("Show all", () => zoom(null, null), { class: "unzoom", hidden: true });
  const files = make("span", { class: "files" });
  const bar = make("div", { class: "chart-bar", role: "group", "aria-label": "Curves" }, choice,
    make("label", { class: "smoothing" }, "Smoothing", smoothing, amount), usual, axis,
    tick("log", "Log scale", "Each factor of ten takes the same height"), tick("outliers", "Outliers", "Also show the wildest hundredth of the values"),
    button("−", () => scaleBy(2), { "aria-label": "Zoom out" }), button("+", () => scaleBy(0.5), { "aria-label": "Zoom in" }), all, files);
  const legend = make("div", { class: "legend", role: "group", "aria-label": "Runs" });
  const hint = make("p", { class: "quiet chart-hint" }, "Drag across a curve to look closer, double-click to see all of it. With keys: arrows, + and −, Escape.");
  const others = make("div", { class: "small-charts" }), waiting = make("p", { class: "quiet" }), table = make("tbody");
  const figures = make("details", { class: "chart-table", ontoggle: draw }, make("summary", {}, "Figures"),
    make("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Figures" }, make("table", {}, make("thead", {}, rowOf("th", ["", "Now", "Lowest", "at step", "Highest", "at step"])), table)));
  const charts = make("div", { class: "charts" }, bar, legend, large.figure, hint, others, figures, said);
  const node = make("div", {}, waiting, charts);
  let waitingText = "";

  function show(wanted, text) {
    const same = wanted.map((run) => run.id).join() === runs.map((run) => run.id).join();
    const answers = new Map(runs.map((run) => [run.id, run.answer]));
    runs = wanted.map((run) => ({ ...run, answer: answers.get(run.id) || null }));
    waitingText = text;
    if (!same) hideValues(host);
    read();
  }

  // One reading at a time; what is asked meanwhile is read once more after it.
  async function read() {
    again = reading;
    if (reading) return;
    reading = true;
    const wanted = runs, asked = questionOf();
    try {
      const answers = await Promise.all(wanted.map((run) => fetch(`/atelier/runs/${encodeURIComponent(run.id)}/curves?${asked}`).then((reply) => (reply.ok ? reply.json() : null))));
      if (wanted === runs) wanted.forEach((run, index) => (run.answer = answers[index]));
    } catch { /* the page says itself that the connection is gone, and asks again with the next change */ }
    reading = false;
    if (again) return read();
    if (wanted === runs) draw();
  }

  function questionOf() {
    const width = Math.round(large.width / 2);
    const asked = new URLSearchParams({ axis: look.axis, points: Math.min(POINTS.most, Math.max(POINTS.least, width)) });
    if (look.keep !== null) asked.set("keep", look.keep);
    if (look.first !== null) { asked.set("first", look.first); asked.set("last", look.last); }
    return asked;
  }

  function draw() {
    const read = runs.filter((run) => run.answer && run.answer.span.length);
    const told = read.filter((run) => !look.hidden.has(run.id) || read.length < 2);
    const enough = read.some((run) => run.answer.span[0][1] > run.answer.span[0][0]);
    waiting.hidden = enough;
    waiting.textContent = waitingText;
    charts.hidden = !enough;
    if (!enough || !told.length) return;
    if (look.first !== null && !told.some((run) => run.answer.steps.length)) return zoom(null, null); // this run is shorter
    const groups = [...new Set(namesIn(told).map(groupOf))];
    const shownLarge = groups.includes(look.metric) ? look.metric : groups[0];
    renew(choice, groups, () => groups.map((group) => make("option", { value: group }, metric(group).title)));
    choice.value = shownLarge;
    host.charts().forEach((chart) => chart.measure());
    large.draw(specOf(shownLarge, told, look));
    drawSmall(groups.filter((group) => group !== shownLarge), told);
    drawBar(read, told);
    if (figures.open) drawTable(told);
  }

  function drawTable(told) {
    table.replaceChildren(...told.flatMap((run) => namesIn([run]).filter((name) => facts(run, name)).map((name) => factsRow(run, name, told))));
  }

  function drawSmall(groups, told) {
    [...small.keys()].filter((group) => !groups.includes(group)).forEach((group) => { small.get(group).figure.remove(); small.delete(group); });
    groups.forEach((group) => {
      if (!small.has(group)) {
        const chart = makeChart(false);
        chart.onenlarge = () => enlarge(group);
        listen(chart, host);
        small.set(group, chart);
      }
      small.get(group).draw(specOf(group, told, look));
    });
    renew(others, groups, () => groups.map((group) => small.get(group).figure));
  }

  function drawBar(read, told) {
    all.hidden = look.first === null;
    usual.hidden = look.keep === null;
    const { keep } = told[0].answer;
    if (document.activeElement !== smoothing) smoothing.value = sliderOf(keep);
    amount.textContent = keep === 0 ? "off" : `${Math.round((1 + keep) / (1 - keep))} steps`;
    legend.hidden = read.length < 2;
    renew(legend, read.map((run) => [run.id, run.name, run.colour]), () => read.map((run) => button(run.name, () => toggle(run), { class: "key", style: colourOf(run), title: "Show or hide this run" })));
    read.forEach((run, index) => legend.children[index].setAttribute("aria-pressed", String(!look.hidden.has(run.id))));
    renew(files, read.map((run) => [run.id, run.name]), () => fileLinks(read));
  }

  function fileLinks(read) {
    const name = read.map((run) => run.name).join(" and ").replace(/[^\w. -]+/g, "_").slice(0, 80);
    const links = read.map((run) => make("a", { href: `/atelier/runs/${encodeURIComponent(run.id)}/metrics.csv`, download: "", title: `All values of ${run.name}` }, read.length < 2 ? "CSV" : `CSV of ${run.name}`));
    return ["Save ", ...links, button("SVG", () => saveSvg(large, name), { class: "link" }), button("PNG", () => savePng(large, name), { class: "link" })];
  }

  function toggle(run) {
    if (!look.hidden.delete(run.id)) look.hidden.add(run.id);
    draw();
  }

  function factsRow(run, name, told) {
    const { low, high, last } = facts(run, name), { title, write } = metric(name);
    return rowOf("td", [told.length > 1 ? `${title}, ${run.name}` : title, write(last[0]), write(low[0]), low[1], write(high[0]), high[1]]);
  }

  function enlarge(group) {
    look.metric = group;
    draw();
  }

  function zoom(first, last) {
    const seen = first === null ? null : [Math.max(first, 0), Math.max(last, 0)];
    const tooNear = seen && look.axis === "step" && seen[1] - seen[0] < 1;
    if (tooNear) return;
    Object.assign(look, seen ? { first: seen[0], last: seen[1] } : { first: null, last: null });
    const whole = seen && spanOf(runs.filter((run) => run.answer && run.answer.span.length), { axis: look.axis, first: null, last: null });
    if (whole && seen[0] <= whole[0] && seen[1] >= whole[1]) Object.assign(look, { first: null, last: null });
    read();
  }

  function scaleBy(factor) {
    const { low, high } = large.spec.x, middle = (low + high) / 2, half = ((high - low) / 2) * factor;
    zoom(middle - half, middle + half);
  }

  function smooth() {
    look.keep = keepOf(Number(smoothing.value));
    read();
  }

  let width = 0;
  new ResizeObserver(([{ contentRect }]) => {
    if (contentRect.width === width) return;
    width = contentRect.width;
    draw();
  }).observe(node);
  return { node, show };
}

// The slider goes by the number of steps that are averaged: 1 to about 2000, in equal ratios.
const keepOf = (place) => { const steps = 10 ** (place / 30); return (steps - 1) / (steps + 1); };
const sliderOf = (keep) => Math.round(30 * Math.log10((1 + keep) / (1 - keep)));
// New children only where they would differ, so that one with the keyboard's focus keeps it.
function renew(node, key, children) {
  const text = JSON.stringify(key);
  if (node.dataset.key === text) return;
  node.dataset.key = text;
  node.replaceChildren(...children());
}
const rowOf = (cell, texts) => make("tr", {}, ...texts.map((text, index) => make(index ? cell : "th", index ? {} : { scope: "row" }, String(text))));
