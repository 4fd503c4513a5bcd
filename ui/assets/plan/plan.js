// The plan before a start. Its report is HTML that the server made and escaped; what buttons stand for is in their
// data attributes. Pictures are asked for when their group is chosen. Runs inside gr.HTML, after dataset/dom.js.
const number = (text) => (text === undefined ? null : Number(text));

function receive() {
  const { html = "", busy = false } = props.value || {};
  element.innerHTML = html;
  element.classList.toggle("busy", busy);
  element.querySelectorAll("button").forEach((each) => (each.disabled = busy));
  element.querySelectorAll("details[data-opens]").forEach((each) =>
    each.addEventListener("toggle", () => each.open && showPictures(each.querySelector(".pictures"), each.dataset.opens, 0)));
}

element.addEventListener("click", (event) => {
  const pressed = event.target.closest("button");
  if (!pressed) return;
  const { warning, fix, row, shows } = pressed.dataset;
  if (fix !== undefined) trigger("apply", { warning: number(warning), fix: number(fix) });
  else if (row !== undefined) trigger("apply", { row: number(row) });
  else if ("fit" in pressed.dataset) trigger("apply", { fit: true });
  else if ("measure" in pressed.dataset) trigger("measure", {});
  else if ("cancel" in pressed.dataset) trigger("cancel", {});
  else if ("undo" in pressed.dataset) trigger("undo", {});
  else if (shows) choose(pressed, shows);
});

function choose(pressed, shows) {
  const place = pressed.closest("details").querySelector(".pictures");
  const again = pressed.getAttribute("aria-expanded") === "true";
  element.querySelectorAll("[data-shows]").forEach((each) => each.setAttribute("aria-expanded", String(each === pressed && !again)));
  if (again) place.replaceChildren();
  else showPictures(place, shows, 0);
}

async function showPictures(place, shows, start) {
  place.replaceChildren(make("p", { class: "hint" }, "Looking for the pictures …"));
  const answer = await server.plan_pictures({ job: props.value.job, shows, start }).catch(() => ({ problem: "The program does not answer." }));
  if (answer.problem) return place.replaceChildren(make("p", { class: "hint" }, answer.problem));
  const grid = make("ul", { class: "grid" }, ...answer.items.map(card));
  place.replaceChildren(grid, ...pager(place, shows, answer));
}

function pager(place, shows, { start, total, per_page: perPage }) {
  if (total <= perPage) return [];
  const turn = (text, to) => button(text, () => showPictures(place, shows, to), { disabled: to < 0 || to >= total });
  const told = `${start + 1} to ${Math.min(total, start + perPage)} of ${total}`;
  return [make("p", { class: "pager" }, turn("Back", start - perPage), told, turn("Next", start + perPage))];
}

function card(item) {
  const picture = make("img", { src: item.thumb, alt: item.name, loading: "lazy", onerror: (event) => event.target.replaceWith(make("span", { class: "unseen" }, "cannot be shown")) });
  const frame = make("a", { class: "frame", href: item.picture, target: "_blank", rel: "noopener" }, picture);
  if (item.width) frame.style.aspectRatio = `${item.width} / ${item.height}`;
  frame.style[item.width >= item.height ? "width" : "height"] = "100%";
  if (item.box) frame.append(...cropOver(item.box));
  return make("li", {}, make("div", { class: "mat" }, frame), make("strong", {}, item.name), make("span", {}, item.note));
}

// What is cut off lies in the shade; the box is given as shares of the picture: left, top, right, bottom.
function cropOver([left, top, right, bottom]) {
  const percent = (share) => `${share * 100}%`;
  const kept = make("i", { class: "kept" });
  Object.assign(kept.style, { left: percent(left), top: percent(top), width: percent(right - left), height: percent(bottom - top) });
  const hole = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]].map((point) => point.map(percent).join(" "));
  const shade = make("i", { class: "shade" });
  shade.style.clipPath = `polygon(evenodd, 0 0, 100% 0, 100% 100%, 0 100%, 0 0, ${hole})`;
  return [shade, kept];
}

watch("value", receive);
receive();
