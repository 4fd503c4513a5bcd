// Numbers on a chart: where they lie, round ticks, and how they are written. Runs inside gr.HTML after dom.js.
const SIDE = 1000; // the drawing's own width and height, whatever its size on the screen
const METRICS = {
  loss: { title: "Loss", write: (value) => value.toPrecision(4) },
  lr: { title: "Learning rate", write: (value) => value.toExponential(2) },
  grad_norm: { title: "Gradient norm", write: short },
  step_ms: { title: "Time per step", write: (value) => (value >= 10000 ? `${short(value / 1000)} s` : `${short(value)} ms`) },
  vram_bytes: { title: "GPU memory", write: (value) => `${(value / 1e9).toFixed(2)} GB` },
  layers_scaled: { title: "Layers held back", write: short },
};

function short(value) {
  if (value !== 0 && Math.abs(value) < 0.001) return value.toExponential(1);
  return Math.abs(value) >= 1e6 ? value.toExponential(2) : Number(value.toPrecision(4)).toString();
}

// Several rates are one chart: "lr", "lr_text_encoder" ...
const groupOf = (name) => (name.startsWith("lr_") || name === "lr" ? "lr" : name);
function metric(name) {
  const words = name.replaceAll("_", " ");
  return METRICS[name] || { title: words[0].toUpperCase() + words.slice(1), write: short };
}

function duration(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${Number(seconds.toPrecision(3))} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  return `${Math.floor(whole / 3600)} h${whole % 3600 ? ` ${Math.round((whole % 3600) / 60)} min` : ""}`;
}

// Multiples of 1, 2 or 5 times a power of ten; of times, of what clocks have.
function ticks(low, high, most, time = false) {
  if (!(high > low)) return [low];
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  let step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough * (1 - 1e-9));
  if (time && rough > 10) step = [15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200].find((each) => each >= rough) || Math.ceil(rough / 86400) * 86400;
  const first = Math.ceil(low / step - 1e-9);
  const count = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: count }, (_, index) => Number(((first + index) * step).toPrecision(12)));
}

function logTicks(low, high, most) {
  const powers = ticks(Math.ceil(Math.log10(low) - 1e-9), Math.floor(Math.log10(high) + 1e-9), most);
  const whole = powers.filter((power) => Number.isInteger(power)).map((power) => 10 ** power);
  return whole.length > 1 ? whole : ticks(low, high, most).filter((value) => value > 0);
}

// The values to show: without outliers all but the wildest hundredth, with a little room.
function rangeOf(values, { log, outliers }) {
  const ordered = Float64Array.from(values.filter((value) => value !== null && (!log || value > 0))).sort();
  if (!ordered.length) return log ? [0.1, 1] : [0, 1];
  const cut = outliers ? 0 : Math.floor(ordered.length / 100);
  const low = ordered[cut], high = ordered[ordered.length - 1 - cut];
  if (log) return high > low ? [low / 1.1, high * 1.1] : [low / 2, high * 2];
  const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
  return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
}

// From values to places from 0 to 1, and back.
function scaleOf([low, high], log = false) {
  const bend = log ? Math.log : (value) => value;
  const from = bend(low), width = bend(high) - from || 1;
  return {
    low, high,
    place: (value) => (bend(log ? Math.max(value, low) : value) - from) / width,
    value: (share) => (log ? Math.exp(from + share * width) : from + share * width),
  };
}

// Index of the entry nearest to a value in an ascending list; -1 in an empty one.
function nearest(list, value) {
  let low = 0, high = list.length - 1;
  if (high < 0) return -1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle;
    else high = middle;
  }
  return Math.abs(list[low] - value) <= Math.abs(list[high] - value) ? low : high;
}
