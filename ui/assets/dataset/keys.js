// Ctrl+Z and Ctrl+Shift+Z (or Ctrl+Y) on the tab, where no text field takes them for what is typed there.
addEventListener("keydown", (event) => {
  const key = event.key.toLowerCase();
  if (!(event.ctrlKey || event.metaKey) || event.altKey || !["z", "y"].includes(key)) return;
  if (!work.offsetParent || event.target.closest("input, textarea, select, [contenteditable]")) return;
  document.querySelector(key === "y" || event.shiftKey ? "#dataset-redo" : "#dataset-undo")?.click();
  event.preventDefault();
});
