// The charts of the run that is shown. Runs last.
const panel = makePanel();
element.replaceChildren(panel.node);
function receive() {
  const { run, waiting } = props.value || {};
  if (run) panel.show([run], waiting);
}
watch("value", receive);
receive();
