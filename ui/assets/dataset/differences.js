// What an edit would change: captions before and after, page by page. Runs inside gr.HTML, after dom.js.
function receive() {
  const sent = props.value || {};
  element.replaceChildren();
  if (sent.count === undefined) return;
  const box = make("div", { class: "differences" });
  const files = `${sent.count} ${sent.count === 1 ? "file" : "files"}`;
  box.append(make("p", { role: "status" }, make("strong", {}, sent.count ? `${files} would change.` : "Nothing would change.")));
  if (sent.rows.length) box.append(make("dl", {}, ...sent.rows.flatMap(row)));
  if (sent.pages > 1) box.append(pager(sent));
  element.append(box);
}

function row({ name, before, after }) {
  return [make("dt", {}, name), side("Before", before, "del"), side("After", after, "ins")];
}

function side(label, parts, mark) {
  const node = make("dd", {}, make("span", { class: "label" }, label));
  const text = make("span", { class: "text" }, ...parts.map(([piece, other]) => make(other ? mark : "span", {}, visible(piece, other))));
  node.append(parts.length ? text : make("span", { class: "label" }, "(nothing)"));
  return node;
}

// A marked line end or a lone space would not be seen.
function visible(piece, other) {
  return other ? piece.replace(/\n/g, "↵\n").replace(/^[ \t]+$/, (spaces) => "␣".repeat(spaces.length)) : piece;
}

function pager({ page, pages, first, rows, count }) {
  const turn = (to) => () => trigger("turn", { page: to });
  return make("nav", { "aria-label": "Pages of the preview" },
    button("‹ Previous", turn(page - 1), { disabled: page === 0 }),
    make("span", {}, `${first + 1} to ${first + rows.length} of ${count}`),
    button("Next ›", turn(page + 1), { disabled: page >= pages - 1 }));
}

watch("value", receive);
receive();
