// What a tool will do: asked for when its form has been still for a moment, in the browser's own time. An event of
// Gradio's for each move of a slider would take longer than the preview. Runs inside gr.HTML. The answer is HTML that the
// server made and escaped.
const STILL_MS = 250;
let form = null; // the values as they were last told
let waiting = 0, turn = 0;

function receive() {
  const { values } = props.value || {};
  if (!values || values === form) return;
  form = values;
  clearTimeout(waiting);
  waiting = setTimeout(ask, STILL_MS);
}

async function ask() {
  const mine = ++turn;
  const told = await server.plan({ values: JSON.parse(form) }).catch(() => null);
  if (told !== null && mine === turn) element.innerHTML = told;
}

watch("value", receive);
receive();
