// Lets the page's one timer tell this component its value: see pulse.js. Runs first inside gr.HTML, which gives it `TOLD`.
// Gradio calls what is watched only for values that it sent itself.
const watching = [];
watch = ((plain) => (names, callback) => { watching.push(callback); plain(names, callback); })(watch);
atelier.told.set(TOLD, {
  element,
  value: () => props.value,
  tell(value) {
    props.value = value;
    watching.forEach((callback) => callback());
  },
});
