// The open picture as training would see it: what its bucket cuts off, and the mask over it.
const SHOWN_PX = 380; // tallest and widest it stands beside the grid
let facts = null; // the server's answer about the open picture
let factsAsked = 0; // answers may overtake each other: only the newest question's counts

const large = make("img", { alt: "", onerror: () => (frame.hidden = true), onload: () => (frame.hidden = false) });
const maskShown = make("div", { class: "ds-mask-shown", title: "The mask: what is learned", hidden: true });
const bucketBox = make("div", { class: "ds-bucket", hidden: true });
const bucketShade = make("div", { class: "ds-shade" });
const handBox = make("div", { class: "ds-hand-box", title: "The crop box drawn by hand", hidden: true });
const frame = make("div", { class: "ds-frame" }, large, maskShown, bucketShade, bucketBox, handBox);
const trainedAt = make("span");
const resolutionChoice = make("select", { "aria-label": "Resolution", onchange: showPlacement });
const trained = make("p", { class: "ds-trained", hidden: true }, resolutionChoice, trainedAt);

function showPicture(item) {
  frame.hidden = true;
  large.src = item.picture;
  large.alt = item.name;
  if (item.width) {
    frame.style.aspectRatio = `${item.width} / ${item.height}`;
    const fits = SHOWN_PX * Math.min(1, item.width / item.height);
    frame.style.width = `${Math.min(fits, Math.max(item.width, 256))}px`;
  }
  showFacts(null);
}

async function askFacts() {
  const name = open.name;
  const turn = ++factsAsked;
  const answer = await server.picture_facts({ folder: view.folder, name }).catch(() => null);
  if (answer && !answer.problem && open?.name === name && turn === factsAsked) showFacts(answer);
}

function showFacts(answer) {
  const before = facts;
  facts = answer;
  trained.hidden = !facts?.placements.length;
  bucketBox.hidden = bucketShade.hidden = true;
  handBox.hidden = !facts?.crop;
  tools.hidden = !facts?.size;
  if (facts?.mask !== before?.mask || !facts) maskShown.hidden = true;
  if (!facts) return;
  if (facts.mask !== before?.mask) showMaskOver();
  if (facts.crop) placeBox(handBox, facts.crop);
  showStored(facts);
  const wanted = resolutionChoice.value;
  const group = (label, ofForm) => make("optgroup", { label }, ...facts.placements.filter(({ own }) => own === ofForm)
    .map(({ resolution }) => make("option", { value: resolution, selected: resolution === wanted }, resolution)));
  resolutionChoice.replaceChildren(group("Chosen here or on the Train tab", true), group("Others", false));
  showPlacement();
}

function showPlacement() {
  const placed = facts?.placements.find(({ resolution }) => resolution === resolutionChoice.value);
  if (!placed) return;
  const cut = placed.cut < 0.0005 ? "nothing is cut off" : `${placed.cut < 0.01 ? "under 1" : Math.round(placed.cut * 100)} % cut off`;
  const enlarged = placed.scale > 1.001 ? `, enlarged ${placed.scale.toFixed(1)} times` : "";
  trainedAt.textContent = `Trained at ${placed.width} × ${placed.height}: ${cut}${enlarged}`;
  trainedAt.className = placed.cut > 0.25 || placed.scale > 1.5 ? "ds-heavy" : "";
  bucketBox.hidden = bucketShade.hidden = placed.cut < 0.0005;
  placeBox(bucketBox, placed.box, bucketShade);
}

// A box given as shares of the picture: left, top, right, bottom. The shade lies on everything around it.
function placeBox(node, [left, top, right, bottom], shade) {
  const percent = (share) => `${share * 100}%`;
  Object.assign(node.style, { left: percent(left), top: percent(top), width: percent(right - left), height: percent(bottom - top) });
  const hole = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]].map((point) => point.map(percent).join(" "));
  if (shade) shade.style.clipPath = `polygon(evenodd, 0 0, 100% 0, 100% 100%, 0 100%, 0 0, ${hole})`;
}
