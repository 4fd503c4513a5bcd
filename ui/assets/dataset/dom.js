// Making elements. Names and captions come from files: they are only ever put in as text, never as HTML.
// The scripts of this folder run one after the other in the scope of one gr.HTML, which gives them
// `element`, `props`, `trigger` and `watch`; `main.js` is the last.
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

const button = (text, onclick, more = {}) => make("button", { type: "button", onclick, ...more }, text);

// For a button whose place the next thing takes: a double click asks for one of them, not for both.
const once = (order) => ({ detail }) => detail < 2 && order();
