// Pictures are looked up by id: each lies in the page once, as a data URI, until it is looked at.
const data = JSON.parse($("data").textContent);
const uri = (id) => $(id).textContent;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// ---- figures against the fp32 decode or the original: one choice for the whole page

function chooseAgainst(value) {
  document.documentElement.dataset.against = value;
  for (const input of all("[data-toggle=against] input")) input.checked = input.value === value;
  if (data.pictures.length) drawFigures();
}
for (const input of all("[data-toggle=against] input"))
  input.addEventListener("change", () => chooseAgainst(input.value));

const more = $("all-cases");
if (more) more.addEventListener("click", () => {
  document.querySelector(".shortened").classList.remove("shortened");
  more.parentElement.remove();
});

// ---- the viewer

const stage = $("stage");
// split: the divider's place, 0 to 1. scale: screen pixels per image pixel; x, y: its top left.
const state = { picture: 0, left: 1, right: 1, show: "picture", split: 0.5, scale: 1, x: 0, y: 0, fitted: true };
const picture = () => data.pictures[state.picture];
const GREATEST = 32;

function fitScale() {
  return Math.min(stage.clientWidth / picture().width, stage.clientHeight / picture().height);
}

function place() {
  const { width, height } = picture();
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  const [wide, high] = [width * state.scale, height * state.scale];
  // Whole screen pixels, so that a picture at 100 % is shown bit for bit.
  state.x = Math.round(wide <= w ? (w - wide) / 2 : clamp(state.x, w - wide, 0));
  state.y = Math.round(high <= h ? (h - high) / 2 : clamp(state.y, h - high, 0));
  for (const image of all("img", stage)) {
    image.style.width = `${width}px`;
    image.style.height = `${height}px`;
    image.style.transform = `translate(${state.x}px, ${state.y}px) scale(${state.scale})`;
    image.classList.toggle("pixels", state.scale >= 2 || state.scale === 1);
  }
  stage.classList.toggle("zoomed", !state.fitted);
  $("scale").textContent = `${Math.round(state.scale * 100)} %`;
  drawSplit();
}

function drawSplit() {
  const percent = state.split * 100;
  $("at-left").style.clipPath = `inset(0 ${100 - percent}% 0 0)`;
  $("at-right").style.clipPath = `inset(0 0 0 ${percent}%)`;
  $("divider").style.left = `${percent}%`;
  const [left, right] = [data.sides[state.left], data.sides[state.right]];
  stage.setAttribute("aria-valuenow", Math.round(percent));
  stage.setAttribute("aria-valuetext", `${Math.round(percent)} % ${left}, the rest ${rightWords()}`);
  stage.setAttribute("aria-label", `${picture().name}: ${left} at the left, ${right} at the right`);
}

function fit() {
  state.fitted = true;
  state.scale = fitScale();
  place();
}

function zoomTo(scale, px = stage.clientWidth / 2, py = stage.clientHeight / 2) {
  const least = Math.min(fitScale(), 1);
  const next = clamp(scale, least, GREATEST);
  state.x = px - (px - state.x) * (next / state.scale);
  state.y = py - (py - state.y) * (next / state.scale);
  state.scale = next;
  state.fitted = next === fitScale();
  place();
}

function step(direction) {
  const steps = [fitScale(), 0.25, 0.5, 1, 2, 4, 8, 16, 32].sort((a, b) => a - b);
  const next = direction > 0
    ? steps.find((s) => s > state.scale * 1.01)
    : steps.reverse().find((s) => s < state.scale * 0.99);
  if (next) zoomTo(next);
}

function toWorst() {
  const [left, top, side] = picture().crop;
  const least = Math.min(stage.clientWidth, stage.clientHeight);
  state.fitted = false;
  state.scale = clamp(Math.max(1, Math.floor(least / side)), 1, GREATEST);
  state.x = stage.clientWidth / 2 - (left + side / 2) * state.scale;
  state.y = stage.clientHeight / 2 - (top + side / 2) * state.scale;
  place();
}

function rightWords() {
  const name = data.sides[state.right];
  if (state.show === "difference") return `${name}, difference ×${data.gain}`;
  return state.show === "flip" ? `${name}, FLIP map` : name;
}

// An image element's source is set only when it changes: decoding takes time.
function source(image, id) {
  if (image.dataset.id === (id || "")) return;
  image.dataset.id = id || "";
  if (id) image.src = uri(id);
  else image.removeAttribute("src");
}

function draw() {
  const here = picture();
  const [below] = all("#at-left img");
  const [above, blend] = all("#at-right img");
  const flip = state.show === "flip" ? here.flips[state.right] : null;
  const difference = state.show === "difference";
  source(below, here.images[state.left]);
  source(above, flip || (state.show === "flip" ? null : here.images[state.right]));
  source(blend, difference ? here.images[state.left] : null);
  blend.hidden = !difference;
  // |left - right| in 8 bits, then times the gain: what the record's difference pictures show.
  $("at-right").style.filter = difference ? `brightness(${data.gain})` : "";
  $("at-right").classList.toggle("difference", difference);
  $("tag-left").textContent = data.sides[state.left];
  $("tag-right").textContent = rightWords();
  $("left").value = state.left;
  $("right").value = state.right;
  $("name").textContent = $("name").title = here.name;
  for (const input of all("#show input")) input.checked = input.value === state.show;
  for (const button of all("[data-picture]"))
    button.setAttribute("aria-current", Number(button.dataset.picture) === state.picture);
  $("hint").textContent = hint(here);
  drawFigures();
  drawSplit();
}

function hint(here) {
  if (!here.images[state.left] || !here.images[state.right]) return "This picture has no result of that variant.";
  if (state.show === "flip" && !here.flips[state.right])
    return "FLIP maps are of variants against the fp32 decode: choose one at the right.";
  if (state.show === "difference" && state.left === state.right)
    return "Both sides are the same, so their difference is black.";
  return "";
}

function drawFigures() {
  const figures = picture()[document.documentElement.dataset.against];
  const [, left, right] = $("figures").tHead.rows[0].cells;
  for (const [cell, side] of [[left, state.left], [right, state.right]]) {
    const label = document.createElement("span");
    label.className = "clamp";
    label.textContent = label.title = data.sides[side];
    cell.replaceChildren(label);
  }
  const rows = data.metrics.map((metric, n) => {
    const row = document.createElement("tr");
    const head = document.createElement("th");
    head.scope = "row";
    head.textContent = metric.label;
    const unit = document.createElement("small");
    unit.textContent = ` ${metric.unit} ${metric.better === "higher" ? "↑" : "↓"}`;
    head.append(unit);
    row.append(head, ...[state.left, state.right].map((side) => {
      const cell = document.createElement("td");
      cell.className = "n";
      cell.textContent = figures[side][n];
      return cell;
    }));
    return row;
  });
  $("figures").tBodies[0].replaceChildren(...rows);
}

function choose(number) {
  const count = data.pictures.length;
  const before = picture();
  state.picture = (number + count) % count;
  const here = picture();
  stage.style.aspectRatio = `${here.width} / ${here.height}`;
  draw();
  if (state.fitted || before.width !== here.width || before.height !== here.height) fit();
  else place();
  // Scroll the strip only, never the page.
  const button = document.querySelector(`[data-picture="${state.picture}"]`);
  const strip = button.closest(".strip");
  strip.scrollLeft = button.offsetLeft - strip.offsetLeft - (strip.clientWidth - button.offsetWidth) / 2;
}

function side(which, number) {
  if (number < 0 || number >= data.sides.length) return;
  state[which] = number;
  draw();
}

const turn = (which, by) => side(which, (state[which] + by + data.sides.length) % data.sides.length);
const swap = () => { [state.left, state.right] = [state.right, state.left]; draw(); };
const show = (what) => { state.show = state.show === what ? "picture" : what; draw(); };
const slide = (to) => { state.split = clamp(to, 0, 1); drawSplit(); };
function pan(dx, dy) {
  state.x += dx;
  state.y += dy;
  place();
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^Digit([1-9])$/.exec(event.code);
  const back = event.shiftKey ? -1 : 1;
  const arrows = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const way = arrows[event.key];
  const keys = {
    PageUp: () => slide(state.split + 0.1), PageDown: () => slide(state.split - 0.1),
    Home: () => slide(0), End: () => slide(1),
    l: () => turn("left", back), r: () => turn("right", back), x: swap,
    n: () => choose(state.picture + 1), p: () => choose(state.picture - 1),
    d: () => show("difference"), f: () => show("flip"), w: toWorst,
    "+": () => step(1), "=": () => step(1), "-": () => step(-1), "_": () => step(-1), "0": fit,
  };
  const act = digit ? () => side(event.shiftKey ? "left" : "right", Number(digit[1]) - 1)
    : way && event.shiftKey ? () => pan(-way[0] * stage.clientWidth / 8, -way[1] * stage.clientHeight / 8)
    : way ? () => slide(state.split + (way[0] - way[1]) / 100)
    : keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
}

// ---- pointers: one slides or pans, two pinch

const pointers = new Map();
let drag = null;

function at(event) {
  const box = stage.getBoundingClientRect();
  return [event.clientX - box.left - stage.clientLeft, event.clientY - box.top - stage.clientTop];
}

function spread() {
  const [[ax, ay], [bx, by]] = [...pointers.values()];
  return { distance: Math.hypot(ax - bx, ay - by), x: (ax + bx) / 2, y: (ay + by) / 2 };
}

function onDown(event) {
  if (event.button) return;
  const [x, y] = at(event);
  pointers.set(event.pointerId, [x, y]);
  stage.setPointerCapture(event.pointerId);
  const near = Math.abs(x - state.split * stage.clientWidth) < 24;
  drag = pointers.size > 1 ? "pinch" : near || state.fitted ? "slide" : "pan";
  if (drag === "slide") slide(x / stage.clientWidth);
}

function onMove(event) {
  const last = pointers.get(event.pointerId);
  if (!last) return;
  const [x, y] = at(event);
  if (drag === "pinch" && pointers.size === 2) {
    const before = spread();
    pointers.set(event.pointerId, [x, y]);
    const now = spread();
    pan(now.x - before.x, now.y - before.y);
    zoomTo(state.scale * now.distance / Math.max(before.distance, 1), now.x, now.y);
    return;
  }
  pointers.set(event.pointerId, [x, y]);
  if (drag === "slide") slide(x / stage.clientWidth);
  if (drag === "pan") pan(x - last[0], y - last[1]);
}

function onUp(event) {
  pointers.delete(event.pointerId);
  if (!pointers.size) drag = null;
}

function startViewer() {
  for (const which of ["left", "right"]) {
    $(which).append(...data.sides.map((label, n) => new Option(label, n)));
    $(which).addEventListener("change", () => side(which, Number($(which).value)));
  }
  for (const button of all("[data-picture]")) {
    button.querySelector("img").src = uri(data.pictures[button.dataset.picture].images[0]);
    button.addEventListener("click", () => choose(Number(button.dataset.picture)));
  }
  for (const button of all("[data-open]"))
    button.addEventListener("click", () => {
      [state.left, state.right] = [1, Number(button.dataset.side)];
      choose(Number(button.dataset.open));
      stage.focus();
      $("viewer").scrollIntoView();
    });
  for (const input of all("#show input"))
    input.addEventListener("change", () => { state.show = input.value; draw(); });
  const zooms = { in: () => step(1), out: () => step(-1), fit, pixels: () => zoomTo(1), worst: toWorst };
  for (const button of all("[data-zoom]")) button.addEventListener("click", zooms[button.dataset.zoom]);
  $("swap").addEventListener("click", swap);
  stage.addEventListener("keydown", onKey);
  stage.addEventListener("pointerdown", onDown);
  stage.addEventListener("pointermove", onMove);
  for (const name of ["pointerup", "pointercancel"]) stage.addEventListener(name, onUp);
  stage.addEventListener("dblclick", (event) => (state.fitted ? zoomTo(Math.max(4, fitScale() * 2), ...at(event)) : fit()));
  stage.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoomTo(state.scale * Math.exp(-event.deltaY / 300), ...at(event));
  }, { passive: false });
  new ResizeObserver(() => (state.fitted ? fit() : place())).observe(stage);
  if (matchMedia("(max-width: 899px)").matches) $("keys").open = false;
  state.right = data.pictures[0].worst;
  choose(0);
}

if (data.pictures.length) startViewer();
