// The picture to start from with its mask, and the second pass. Runs inside gr.HTML, after dom.js and source_mask.js.
const FIT = [["crop", "Cut off what is too much"], ["resize", "Stretch"], ["pad", "Continue its edges"]];
const AREA = [["whole", "The whole picture"], ["masked", "The masked part alone, at full size"]];
const UPSCALER = [["latent", "In what the model works in"], ["lanczos", "In pixels (Lanczos)"]];
let settings = {};
let lastShown = null; // the value of the server that is shown: what the page itself sets comes back here too
let picture = null; // { url, width, height, painted } of the picture to start from
let mask = null; // the same of its mask
let native = null; // the model's own side in pixels, told by the fields for the size
const filling = []; // each puts what a setting holds into its field

/* Fields */
function slider(name, label, least, most, step, info) {
  const set = (event) => change({ [name]: Number(event.target.value) });
  const number = make("input", { type: "number", min: least, max: most, step: "any", id: `source-${name}`, onchange: set });
  const range = make("input", { type: "range", min: least, max: most, step, "aria-label": `${label}, slider`, oninput: set });
  filling.push(() => { number.value = range.value = settings[name]; });
  return make("div", { class: "one" }, make("div", { class: "head" }, make("label", { for: number.id }, label), number), range, info ? make("small", {}, info) : null);
}

function choice(name, label, options, info) {
  const select = make("select", { id: `source-${name}`, onchange: () => change({ [name]: select.value }) }, ...options.map(([value, text]) => make("option", { value }, text)));
  filling.push(() => { select.value = settings[name]; });
  return make("div", { class: "one" }, make("label", { for: select.id }, label), select, info ? make("small", {}, info) : null);
}

const file = make("input", { type: "file", accept: "image/*", hidden: true, onchange: () => file.files[0] && send(file.files[0]) });
const told = make("p", { class: "quiet", role: "status" });
const image = make("img", { alt: "The picture to start from" });
const maskOver = make("div", { class: "mask-over", hidden: true });
const frame = make("div", { class: "frame" }, image, maskOver);
const paint = button("Paint a mask", () => openMask(picture, mask?.url));
const dropMask = button("Remove the mask", () => { mask = null; change({ mask: null }); });
const empty = make("div", { class: "drop" }, make("p", {}, "Drop a picture here, paste one, or take one of your earlier pictures with \"Start from this\"."), button("Choose a picture", () => file.click()));
const masked = make("div", { class: "grid" }, slider("mask_blur", "Soft border", 0, 64, 1, "Pixels."), choice("inpaint_area", "Drawn is", AREA), slider("mask_padding", "Looked at around it", 0, 512, 8, "Pixels, when the masked part is drawn alone."));
const given = make("div", { class: "given" }, frame, make("div", { class: "buttons" }, paint, dropMask, button("Another picture", () => file.click()), button("Remove", () => { picture = mask = null; change({ init_image: null, mask: null }); })),
  make("div", { class: "grid" }, slider("strength", "Drawn anew", 0, 1, 0.05, "0 keeps the picture, 1 keeps nothing of it."), choice("fit", "Where its shape differs", FIT)), masked);
const start = make("details", { class: "start" }, make("summary", {}, "Start from a picture"), told, empty, given, file);
const hires = make("div", { class: "grid" }, slider("hires_scale", "Times as large", 1, 4, 0.25), slider("hires_strength", "Drawn anew", 0, 1, 0.05), slider("hires_steps", "Steps", 0, 150, 1, "0: as many as in the first."), choice("hires_upscaler", "Enlarged", UPSCALER, "What the model works in needs 0.5 or more drawn anew."));
const size = make("p", { class: "quiet", role: "status" });
const second = make("details", { class: "second" }, make("summary", {}, "Draw larger in a second pass"), size, hires);
const openMask = maskDialog((png) => trigger("painted", { png }));
element.prepend(start, second);

/* Settings */
function change(changes) {
  Object.assign(settings, changes);
  props.value = { settings: JSON.stringify(settings) }; // what Python gets with the next event
  render();
}

function receive() {
  const value = props.value ?? {};
  if (!value.shown || value.shown === lastShown) return;
  lastShown = value.shown;
  const before = settings;
  settings = JSON.parse(value.settings);
  if (settings.init_image !== before.init_image) picture = null;
  if (settings.mask !== before.mask) mask = null;
  if (settings.init_image && settings.init_image !== before.init_image) start.open = true;
  if (settings.hires_scale > 1) second.open = true;
  render();
  fetchPixels();
}

// The pictures themselves, which the settings only name.
async function fetchPixels() {
  const { init_image: path, mask: maskPath } = settings;
  const ask = (field, path) => server.source_pixels({ field, path }).catch(() => ({ problem: "The picture did not come." }));
  const found = path && !picture ? await ask("init_image", path) : picture;
  const foundMask = maskPath && !mask ? await ask("mask", maskPath) : mask;
  if (path !== settings.init_image || maskPath !== settings.mask) return;
  told.textContent = found?.problem ?? foundMask?.problem ?? "";
  picture = found?.url ? found : null;
  mask = foundMask?.url ? foundMask : null;
  render();
}

function render() {
  filling.forEach((fill) => fill());
  const has = Boolean(settings.init_image);
  empty.hidden = has;
  given.hidden = !has;
  frame.hidden = !picture;
  paint.disabled = !picture;
  if (picture && image.src !== picture.url) image.src = picture.url;
  if (picture) frame.style.setProperty("--ratio", picture.width / picture.height);
  maskOver.hidden = !mask;
  maskOver.style.maskImage = mask ? `url(${mask.url})` : "";
  paint.textContent = settings.mask ? "Change the mask" : "Paint a mask";
  dropMask.hidden = masked.hidden = !settings.mask;
  hires.inert = has;
  hires.classList.toggle("idle", has);
  showSize();
}

// Multiples of 8, halves to the even one: as PictureSettings.enlarged rounds.
function enlarged(side) {
  const eighths = (side * settings.hires_scale) / 8;
  return 8 * (eighths % 1 === 0.5 ? 2 * Math.round(eighths / 2) : Math.round(eighths));
}

function showSize() {
  const side = (name) => Number(document.querySelector(`#generate-${name} input`)?.value) || native;
  const [width, height] = [side("width"), side("height")];
  const scale = settings.hires_scale;
  if (settings.init_image) size.textContent = "A second pass follows a picture that is drawn from its prompt alone, not one that starts from a picture.";
  else if (!(scale > 1)) size.textContent = "Off. Draws the picture again at a larger size, with finer detail.";
  else size.textContent = width && height ? `${width} × ${height} becomes ${enlarged(width)} × ${enlarged(height)}.` : `${scale} times as large.`;
}

/* Pictures that come */
async function send(blob) {
  start.open = true;
  told.textContent = "Uploading …";
  try {
    const { path } = await upload(blob);
    trigger("given", { path });
  } catch {
    told.textContent = "The picture did not arrive. Try again.";
  }
  file.value = "";
}

document.addEventListener("atelier-start-from", ({ detail }) => element.isConnected && send(detail));
document.addEventListener("atelier-size", ({ detail }) => { native = detail.side ?? native; showSize(); });
watch("value", receive);
receive();
