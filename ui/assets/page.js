// What the page does without asking the server.
"use strict";
window.atelier = {
  // "light", "dark" or "system"; kept in the browser too, so that the next page starts in it.
  setTheme(theme) {
    localStorage.setItem("atelier-theme", theme);
    const dark = theme === "dark" || (theme === "system" && matchMedia("(prefers-color-scheme: dark)").matches);
    document.body.classList.toggle("dark", dark);
  },
};
document.addEventListener("DOMContentLoaded", () => {
  const theme = localStorage.getItem("atelier-theme");
  if (theme) atelier.setTheme(theme);
});
