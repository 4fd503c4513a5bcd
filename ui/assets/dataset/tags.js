// The table of tags: click to filter by one.
const tagList = make("div", { class: "ds-tag-list" });
const tagSearch = make("input", { type: "search", placeholder: "Find a tag", "aria-label": "Find a tag", oninput: showTags });
const tagTitle = make("summary");
const tags = make("details", { class: "ds-tags" }, tagTitle, tagSearch, tagList);

function showTags() {
  const wanted = tagSearch.value.trim().toLowerCase();
  tagTitle.textContent = `Tags (${view.tags.length})`;
  const found = view.tags.filter(([tag]) => tag.toLowerCase().includes(wanted));
  tagList.replaceChildren(...found.map(([tag, count]) =>
    button("", () => filterByTag(tag), { class: query.tags.includes(tag) ? "ds-chip ds-on" : "ds-chip", "aria-pressed": query.tags.includes(tag) })));
  [...tagList.children].forEach((node, index) => node.append(found[index][0], make("span", { class: "ds-number" }, String(found[index][1]))));
}
