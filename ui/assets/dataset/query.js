// Which pictures are shown: search, filters and order, pages, and asking the server for them.
const NO_FILTER = { text: "", show: "all", tags: [], among: "all", bucket: "", shape: "", folder: "", mask: "" };
const query = { ...NO_FILTER, sort: "name", per_page: 48 };
let view = null; // the page of pictures as the server last sent it
let afterTurn = null; // "first" or "last": which picture to open when the asked page arrives
let asked = 0; // number of the last page asked for; an older answer must not undo it
let pageAsked = 0;
let waiting = 0; // pause while somebody types in the search field
let reading = 0; // asks again while the server reads the pictures' sizes

const search = make("input", { type: "search", placeholder: "Search captions and names", "aria-label": "Search", oninput: searchSoon, onchange: searchNow });
const show = chooser("show", "Show");
const more = button("More filters", () => unfold(moreFields.hidden), { class: "ds-more", "aria-expanded": "false", "aria-controls": "ds-more-fields" });
const fields = { // what stands behind "More filters"; the server sends what there is to choose from
  bucket: chooser("bucket", "Bucket"), shape: chooser("shape", "Shape"), folder: chooser("folder", "Subfolder"),
  mask: chooser("mask", "Mask"), among: chooser("among", "With the tags"), sort: chooser("sort", "Order"), per_page: chooser("per_page", "On a page"),
};
const FIXED = {
  among: [["all", "All of them"], ["any", "At least one"], ["none", "None of them"]],
  sort: [["name", "By name"], ["newest", "Newest first"], ["oldest", "Oldest first"], ["largest", "Largest first"], ["smallest", "Smallest first"],
    ["longest", "Longest caption first"], ["shortest", "Shortest caption first"]],
  per_page: [["24", "24"], ["48", "48"], ["96", "96"]],
};
const OFFERED = { bucket: "buckets", shape: "shapes", folder: "folders", mask: "masks" };
const unreadSizes = make("p", { class: "ds-unread", role: "status", hidden: true });
const moreFields = make("div", { class: "ds-fields", id: "ds-more-fields", hidden: true },
  ...Object.values(fields).map((field) => make("label", {}, field.getAttribute("aria-label"), field)), unreadSizes);
const filterChips = make("div", { class: "ds-filters", hidden: true });
const back = button("‹ Previous page", () => turn(-1));
const forth = button("Next page ›", () => turn(1));
const where = make("span", { "aria-live": "polite" });

function chooser(name, label) {
  return make("select", { "aria-label": label, onchange: ({ target }) => filterBy({ [name]: name === "per_page" ? Number(target.value) : target.value }) });
}

function ask(page) {
  save();
  query.text = search.value;
  asked += 1;
  pageAsked = page;
  grid.setAttribute("aria-busy", "true");
  sendAlong(); // what is ordered before the answer is meant for what was asked for
  trigger("turn", { page, query: { ...query }, asked });
}

function filterBy(wanted) {
  Object.assign(query, wanted);
  if ("text" in wanted) search.value = query.text;
  ask(0);
}

function filterByTag(tag) { // on, or off where it is on
  filterBy({ tags: query.tags.includes(tag) ? query.tags.filter((other) => other !== tag) : [...query.tags, tag] });
}

function searchSoon() {
  clearTimeout(waiting);
  waiting = setTimeout(searchNow, 300);
}

function searchNow() {
  clearTimeout(waiting);
  if (search.value !== query.text) ask(0);
}

const showAll = () => filterBy(NO_FILTER);

function turn(by, then = null) {
  const page = view.page + by;
  if (page < 0 || page >= view.pages) return;
  afterTurn = then;
  ask(page);
}

function unfold(open) {
  moreFields.hidden = !open;
  more.setAttribute("aria-expanded", open);
}

function showQuery() {
  Object.assign(query, view.query);
  pageAsked = view.page;
  if (document.activeElement !== search) search.value = query.text;
  offer(show, view.shows, query.show);
  for (const [name, field] of Object.entries(fields)) {
    const found = FIXED[name] ?? [["", "Any"], ...view[OFFERED[name]]];
    offer(field, found, String(query[name]));
    field.parentElement.hidden = name === "among" ? query.tags.length === 0 : found.length < 3 && !query[name];
  }
  showFilterChips();
  showReading();
}

function offer(field, found, value) {
  const options = found.map(([name, label]) => make("option", { value: name }, label));
  const same = options.length === field.options.length && options.every((option, index) => option.isEqualNode(field.options[index]));
  if (!same) field.replaceChildren(...options);
  if (!found.some(([name]) => name === value)) field.append(make("option", { value }, value)); // asked for, but there is none now
  field.value = value;
}

function showFilterChips() {
  const labelOf = (field) => (field.selectedOptions[0]?.textContent ?? "").replace(/ \(\d+\)$/, "");
  const active = Object.keys(OFFERED).filter((name) => query[name]).map((name) => [`${fields[name].getAttribute("aria-label")}: ${labelOf(fields[name])}`, { [name]: "" }]);
  if (query.show !== "all") active.unshift([labelOf(show), { show: "all" }]);
  if (query.text.trim()) active.unshift([`Text: ${query.text.trim()}`, { text: "" }]);
  for (const tag of query.tags) active.push([`${query.among === "none" ? "Not tag" : "Tag"}: ${tag}`, { tags: query.tags.filter((other) => other !== tag) }]);
  const hiddenOnes = active.filter(([, without]) => !("text" in without || "show" in without)).length;
  more.textContent = hiddenOnes ? `More filters (${hiddenOnes})` : "More filters";
  filterChips.hidden = active.length === 0;
  filterChips.replaceChildren(
    ...active.map(([label, without]) => button(`${label}  ×`, () => filterBy(without), { class: "ds-chip ds-on", title: "Remove this filter" })),
    ...(active.length > 1 ? [button("Clear all filters", showAll, { class: "ds-plain" })] : []));
}

function showReading() {
  clearTimeout(reading);
  unreadSizes.hidden = view.unread === 0;
  unreadSizes.textContent = `Reading the sizes of the pictures: ${view.total - view.unread} of ${view.total}. Buckets and shapes are complete when that is done.`;
  if (view.unread) reading = setTimeout(lookAgain, 2000);
}

function lookAgain() { // the same page, without disturbing what somebody does
  if (document.hidden || !moreFields.offsetParent) reading = setTimeout(lookAgain, 2000);
  else trigger("turn", { page: pageAsked, query: { ...query }, asked });
}
