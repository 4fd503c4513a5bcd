// The job that works on the open dataset: progress, time left, cancel, and how it ended. Runs inside gr.HTML.
let dismissed = "";
const part = (tag, text = "", more = {}) => Object.assign(document.createElement(tag), { textContent: text }, more);

function receive() {
  const job = props.value || {};
  const running = job.state === "running";
  element.replaceChildren();
  if (job.state && job.key !== dismissed) element.append(panel(job, running));
  trigger("refresh");
}

function panel(job, running) {
  const box = part("div", "", { className: `job ${job.state}` });
  const line = part("p");
  const state = { running: job.what, finished: "done", stopped: "stopped", failed: "did not work" }[job.state];
  line.append(part("strong", job.title), ` ${state}`);
  if (running && job.total) line.append(` ${job.done} of ${job.total}${job.speed ? `, ${job.speed}` : ""}${job.left ? `, about ${job.left} left` : ""}`);
  if (job.goes_on) line.append(part("button", "Go on", { type: "button", onclick: () => trigger("resume", { id: job.id }) }));
  if (job.opens) line.append(part("button", "Open it", { type: "button", onclick: () => trigger("open", { folder: job.opens }) }));
  line.append(part("button", running ? "Cancel" : "Close", { type: "button", onclick: () => press(job, running) }));
  line.setAttribute("role", "status");
  box.append(line);
  if (running) box.append(job.total ? part("progress", "", { value: job.done, max: job.total }) : part("progress"));
  job.lines.forEach((text) => box.append(part("p", text, { className: "detail" })));
  return box;
}

function press(job, running) {
  if (running) return trigger("cancel", { id: job.id });
  dismissed = job.key;
  receive();
}

watch("value", receive);
receive();
