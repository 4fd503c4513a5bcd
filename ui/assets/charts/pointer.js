// Reading values and choosing a stretch, by mouse, finger and keys. Runs after figures.js.
// `host` has: charts() all that are shown, zoom(first, last) with nulls for all, said(text) for screen readers.
const SMALLEST_DRAG_PX = 6;

function showValues(chart, share, host) {
  host.charts().forEach((each) => {
    each.cursor.hidden = each.spec === null;
    each.cursor.style.left = `${share * 100}%`;
  });
  const { step, elapsed, lines } = valuesAt(chart.spec, chart.spec.x.value(share));
  if (step === undefined) return "";
  const title = chart.spec.axis === "time" ? `${duration(elapsed)}, step ${step}` : `step ${step}`;
  chart.readout.replaceChildren(make("b", {}, title), ...lines.map(([text, layer]) => make("span", { class: layer.colour === undefined ? "" : "coloured", style: colourOf(layer) }, text)));
  chart.readout.hidden = false;
  chart.readout.style.left = `${share * 100}%`;
  chart.readout.classList.toggle("flip", share > 0.6);
  return [title, ...lines.map(([text]) => text)].join(", ");
}

function hideValues(host) {
  host.charts().forEach((each) => (each.readout.hidden = each.cursor.hidden = true));
}

function listen(chart, host) {
  const { drawing } = chart;
  const shareAt = (event) => {
    const box = drawing.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  const selection = make("div", { class: "selection", hidden: true });
  drawing.append(selection);
  let from = null;

  drawing.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    from = { share: shareAt(event), x: event.clientX };
    drawing.setPointerCapture(event.pointerId);
  });
  drawing.addEventListener("pointermove", (event) => {
    if (!chart.spec) return;
    const share = shareAt(event);
    showValues(chart, share, host);
    if (!from) return;
    selection.hidden = Math.abs(event.clientX - from.x) < SMALLEST_DRAG_PX;
    selection.style.left = `${Math.min(share, from.share) * 100}%`;
    selection.style.width = `${Math.abs(share - from.share) * 100}%`;
  });
  drawing.addEventListener("pointerup", (event) => {
    const begun = from;
    from = null;
    selection.hidden = true;
    if (!begun || !chart.spec || Math.abs(event.clientX - begun.x) < SMALLEST_DRAG_PX) return;
    const [first, last] = [begun.share, shareAt(event)].sort((a, b) => a - b).map(chart.spec.x.value);
    host.zoom(first, last);
  });
  drawing.addEventListener("pointercancel", () => {
    from = null;
    selection.hidden = true;
  });
  drawing.addEventListener("pointerleave", () => from || hideValues(host));
  drawing.addEventListener("dblclick", () => host.zoom(null, null));
  listenKeys(chart, host);
}

function listenKeys(chart, host) {
  let share = 1;
  chart.drawing.addEventListener("blur", () => hideValues(host));
  chart.drawing.addEventListener("keydown", (event) => {
    if (!chart.spec || event.ctrlKey || event.altKey || event.metaKey) return;
    const { x } = chart.spec, width = x.high - x.low, middle = x.value(share);
    const keys = {
      ArrowLeft: () => (event.shiftKey ? host.zoom(x.low - width / 4, x.high - width / 4) : (share -= 0.01)),
      ArrowRight: () => (event.shiftKey ? host.zoom(x.low + width / 4, x.high + width / 4) : (share += 0.01)),
      PageUp: () => (share -= 0.1),
      PageDown: () => (share += 0.1),
      Home: () => (share = 0),
      End: () => (share = 1),
      "+": () => host.zoom(middle - width * share / 2, middle + width * (1 - share) / 2),
      "-": () => host.zoom(middle - width * share * 2, middle + width * (1 - share) * 2),
      Escape: () => host.zoom(null, null),
    };
    keys["="] = keys["+"];
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
    share = Math.min(1, Math.max(0, share));
    host.said(showValues(chart, share, host));
  });
}
