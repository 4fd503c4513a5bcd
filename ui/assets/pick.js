// Lists of buttons: a click tells the server which one. Runs inside gr.HTML.
element.addEventListener("click", (event) => {
  const item = event.target.closest("[data-pick]");
  if (item) trigger("pick", { id: item.dataset.pick });
});
