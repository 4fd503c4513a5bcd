// Picture walls: a click opens the picture large, arrow keys go through its row, buttons tell the server. Runs inside gr.HTML.
const dialog = document.createElement("dialog");
dialog.className = "viewer";
dialog.innerHTML = '<img alt=""><p></p><nav><button type="button" data-go="-1" aria-label="Previous">‹</button>' +
  '<button type="button" data-go="1" aria-label="Next">›</button><a download>Save picture</a>' +
  '<button type="button" class="use" hidden>Use these settings</button><button type="button" data-close>Close</button></nav>';
element.parentElement.append(dialog); // beside the wall: an update of the wall must not close it
let shown = null; // address of the picture shown, so that it is found again in an updated wall

const all = () => [...element.querySelectorAll("[data-large]")];
const current = () => all().find((item) => item.dataset.large === shown);

function show(item) {
  if (!item) return;
  shown = item.dataset.large;
  const picture = dialog.querySelector("img");
  picture.src = shown;
  picture.alt = item.dataset.caption;
  dialog.querySelector("p").textContent = item.dataset.caption;
  dialog.querySelector("a").href = shown;
  dialog.querySelector("a").download = item.dataset.name || "picture.png";
  dialog.querySelector(".use").hidden = !item.dataset.use;
  if (!dialog.open) dialog.showModal();
}

function go(by) {
  const items = all().filter((item) => !current() || item.dataset.row === current().dataset.row);
  show(items[items.indexOf(current()) + by]);
}

element.addEventListener("click", (event) => {
  const item = event.target.closest("[data-large]");
  if (item) show(item);
  const pick = event.target.closest("[data-pick]");
  if (pick) trigger("pick", { id: pick.dataset.pick });
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog || event.target.closest("[data-close]")) dialog.close();
  const step = event.target.closest("[data-go]");
  if (step) go(Number(step.dataset.go));
  if (event.target.closest(".use") && current()) {
    trigger("pick", { id: current().dataset.use });
    dialog.close();
  }
});
dialog.addEventListener("keydown", (event) => {
  if (event.key === "ArrowRight") go(1);
  if (event.key === "ArrowLeft") go(-1);
});
