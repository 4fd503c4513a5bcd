// Runs before Gradio's own scripts. Gradio counts the seconds of its "Loading" in a loop of frames that goes on for ever,
// as the counter is taken off the page while it runs: 60 frames a second, three quarters of what a page at rest costs
// the browser. The frame that it waits for when the page has opened does not come.
"use strict";
(() => {
  const schedule = window.requestAnimationFrame.bind(window);
  const loading = () => !document.body || !window.atelier || document.body.inert;
  const counts = (callback) => /performance\.now\(\) ?-/.test(String(callback));
  window.requestAnimationFrame = (callback) => {
    const early = loading();
    return schedule((time) => {
      if (!(early && !loading() && counts(callback))) callback(time);
    });
  };
})();
