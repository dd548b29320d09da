// Makes a page that is complete without it answer to pointer and keyboard.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const tip = byId("tip");
const viewer = byId("viewer");
const SVG = "http://www.w3.org/2000/svg";

document.documentElement.classList.add("scripted");

const signed = (logit) => (logit <= -0.005 ? "\u2212" : "+") + Math.abs(logit).toFixed(2);
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

// As time_code in judgement/words.py writes it.
const clock = (seconds) => {
  const ticks = Math.round(Math.abs(seconds) * 1000);
  const wide = (n, digits = 2) => String(n).padStart(digits, "0");
  const whole = Math.floor(ticks / 1000);
  const hours = Math.floor(whole / 3600);
  const minutes = Math.floor(whole / 60) % 60;
  const head = hours ? `${hours}:${wide(minutes)}` : `${minutes}`;
  return `${seconds < 0 && ticks ? "\u2212" : ""}${head}:${wide(whole % 60)}.${wide(ticks % 1000, 3)}`;
};

const standing = (logit, track) => {
  const [low, high] = data.bounds[track]; // each face has its own
  return logit >= high ? "above the limits" : logit <= low ? "below the limits" : "between the limits";
};

/** The value of a sorted list that is nearest to `wanted`. */
function nearest(sorted, wanted, key = (item) => item) {
  let low = 0;
  let high = sorted.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (key(sorted[middle]) <= wanted) low = middle;
    else high = middle;
  }
  return Math.abs(key(sorted[high]) - wanted) < Math.abs(key(sorted[low]) - wanted) ? high : low;
}

function mark(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

// --- the frame viewer: step, zoom, maps, save ----------------------------------------------------

let open = 0; // place in data.frames
let stage = null; // the frame on display
let view = null; // what of it is seen: x, y, width, height in its pixels

const MOST_ZOOM = 32;
const full = () => [0, 0, Number(stage.dataset.width), Number(stage.dataset.height)];

function look(x, y, width, height) {
  const [, , wide, tall] = full();
  width = clamp(width, wide / MOST_ZOOM, wide);
  height = clamp(height, tall / MOST_ZOOM, tall);
  view = [clamp(x, 0, wide - width), clamp(y, 0, tall - height), width, height];
  stage.setAttribute("viewBox", view.map((v) => v.toFixed(2)).join(" "));
  stage.querySelector(".boxes").setAttribute("font-size", (((wide + tall) / 70) * width) / wide);
}

/** Show less (by > 1) or more around a point, given in the frame's pixels. */
function zoom(by, at = [view[0] + view[2] / 2, view[1] + view[3] / 2]) {
  const [x, y, width, height] = view;
  const [, , wide, tall] = full();
  const scale = clamp(1 / by, 1 / MOST_ZOOM / (width / wide), wide / width);
  look(at[0] - (at[0] - x) * scale, at[1] - (at[1] - y) * scale, width * scale, height * scale);
}

/** The frame's pixels to a pixel of the screen, as the stage shows them now. */
const density = () => {
  const place = stage.getBoundingClientRect();
  return Math.max(view[2] / place.width, view[3] / place.height);
};

/** A place on the screen in the frame's pixels. */
function inFrame(event) {
  const place = stage.getBoundingClientRect();
  const per = density();
  return [
    view[0] + view[2] / 2 + (event.clientX - place.left - place.width / 2) * per,
    view[1] + view[3] / 2 + (event.clientY - place.top - place.height / 2) * per,
  ];
}

/** The box of a face, or of the one that matters most. */
function box(track) {
  const groups = [...stage.querySelectorAll(".boxes g")];
  const group =
    groups.find((g) => g.querySelector("text").textContent === track) ?? stage.querySelector(".boxes .first") ?? groups[0];
  return group ? group.dataset.box.split(" ").map(Number) : null;
}

function toFace(track) {
  const found = box(track);
  if (!found) return;
  const [x, y, width, height] = found;
  const [, , wide, tall] = full();
  const share = Math.min(1, Math.max((2 * width) / wide, (2 * height) / tall));
  look(x + width / 2 - (share * wide) / 2, y + height / 2 - (share * tall) / 2, share * wide, share * tall);
}

function show(place, keep = false) {
  const before = keep ? view : null;
  open = clamp(place, 0, data.frames.length - 1);
  const kept = byId(`frame-${data.frames[open]}`);
  byId("viewer-body").replaceChildren(kept.content.cloneNode(true));
  stage = byId("viewer-body").querySelector(".stage");
  look(...(before ?? full()));
  byId("viewer-title").textContent = kept.dataset.title;
  byId("earlier").setAttribute("aria-disabled", open === 0);
  byId("later").setAttribute("aria-disabled", open === data.frames.length - 1);
  if (!viewer.open) viewer.showModal();
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(event.deltaY < 0 ? 1.25 : 0.8, inFrame(event));
  }, { passive: false });
  stage.addEventListener("dblclick", (event) => zoom(2, inFrame(event)));
}

function drag(start) {
  const pulled = stage;
  const from = [start.clientX, start.clientY];
  const [x, y, width, height] = view;
  const per = density();
  pulled.setPointerCapture(start.pointerId);
  pulled.onpointermove = (event) =>
    look(x - (event.clientX - from[0]) * per, y - (event.clientY - from[1]) * per, width, height);
  pulled.onpointerup = pulled.onpointercancel = () => (pulled.onpointermove = null);
}

function openNear(index) {
  if (data.frames.length) show(nearest(data.frames, index));
}

for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => {
    openNear(Number(button.dataset.open));
    setMap(button.dataset.map === "main");
    if (button.dataset.face) toFace(button.dataset.face);
  });
}

/** Maps on or off, here and on the page; which kind is chosen on the page. */
function setMap(on) {
  const none = byId("map-none");
  if (!none) return;
  if (on && none.checked) byId("map-main").checked = true;
  else if (!on) none.checked = true;
  byId("map").setAttribute("aria-pressed", on);
}

function setBoxes(on) {
  byId("boxes").setAttribute("aria-pressed", on);
  byId("viewer-body").classList.toggle("plain-boxes", !on);
}

const pressed = (id) => byId(id).getAttribute("aria-pressed") === "true";
const actions = {
  earlier: () => show(open - 1, true),
  later: () => show(open + 1, true),
  closer: () => zoom(1.6),
  wider: () => zoom(1 / 1.6),
  native: () => zoom(density() * devicePixelRatio),
  whole: () => look(...full()),
  "to-face": () => toFace(),
  map: () => setMap(!pressed("map")),
  boxes: () => setBoxes(!pressed("boxes")),
  save: () => save(),
  close: () => viewer.close(),
};
for (const [id, act] of Object.entries(actions)) byId(id)?.addEventListener("click", act);
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close(); // the backdrop
});
viewer.addEventListener("close", () => setMap(false));
viewer.addEventListener("keydown", (event) => {
  const keys = {
    ArrowLeft: "earlier", ArrowRight: "later", "+": "closer", "=": "closer", "-": "wider", 0: "whole", 1: "native",
    f: "to-face", m: "map", b: "boxes", s: "save",
  };
  const act = event.ctrlKey || event.metaKey || event.altKey ? null : actions[keys[event.key]];
  if (!act || !byId(keys[event.key])) return;
  event.preventDefault();
  act();
});

/** Save what is seen as a PNG: the frame in its own size, with the maps that are on. */
async function save() {
  const [, , wide, tall] = full();
  const canvas = Object.assign(document.createElement("canvas"), { width: wide, height: tall });
  const paint = canvas.getContext("2d");
  for (const use of stage.querySelectorAll("use")) {
    if (getComputedStyle(use).display === "none" || getComputedStyle(use.parentNode).display === "none") continue;
    const kept = byId(use.getAttribute("href").slice(1));
    const picture = Object.assign(new Image(), { src: kept.getAttribute("href") });
    await picture.decode();
    const at = (name) => Number(kept.getAttribute(name) ?? 0);
    const matrix = (kept.getAttribute("transform") ?? "matrix(1 0 0 1 0 0)").slice(7, -1).split(" ").map(Number);
    paint.setTransform(...matrix);
    paint.drawImage(picture, at("x"), at("y"), at("width"), at("height"));
  }
  const link = document.createElement("a");
  link.download = `${document.querySelector("h1").textContent.trim()}-${byId("viewer-title").textContent}.png`.replace(/[\\/:*?"<>|\s]+/g, "_");
  link.href = canvas.toDataURL("image/png");
  link.click();
}

// --- strips: one stop for the Tab key each, arrows within ---------------------------------------

for (const strip of document.querySelectorAll(".strip")) {
  const cells = [...strip.querySelectorAll(".cell")];
  cells.slice(1).forEach((cell) => (cell.tabIndex = -1));
  strip.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const from = cells.indexOf(document.activeElement);
    const to = clamp(from + steps[event.key], 0, cells.length - 1);
    cells[from].tabIndex = -1;
    cells[to].tabIndex = 0;
    cells[to].focus();
  });
}

// --- the timeline ------------------------------------------------------------------------------

const plots = [...document.querySelectorAll(".plot")];
const pictured = {}; // track -> cells of its strip, in order of time
for (const cell of document.querySelectorAll(".cell")) {
  (pictured[cell.dataset.track] ??= []).push(cell);
}

function clear() {
  tip.hidden = true;
  document.querySelectorAll(".cursor, .here").forEach((element) => element.remove());
}

/** Point out one instant: a line through all curves, a dot on this one, and a card beside it. */
function point(plot, [x, y, time, logit, index]) {
  clear();
  for (const other of plots) {
    other.append(mark("line", { class: "cursor", x1: `${x}%`, x2: `${x}%`, y1: 0, y2: "100%" }));
  }
  plot.append(mark("circle", { class: "here", cx: `${x}%`, cy: `${y}%`, r: 5 }));
  const words = document.createElement("span");
  words.append(clock(time), " ", Object.assign(document.createElement("b"), { textContent: signed(logit) }));
  tip.replaceChildren(words);
  const cells = pictured[plot.dataset.track];
  if (cells) {
    const cell = cells[nearest(cells, index, (c) => Number(c.dataset.open))];
    tip.prepend(cell.querySelector(".crop").cloneNode(true));
    if (Number(cell.dataset.open) !== index) {
      const note = document.createElement("span");
      note.className = "note";
      note.textContent = `picture of ${cell.querySelector(".time").textContent}, the nearest kept`;
      tip.append(note);
    }
  }
  tip.hidden = false;
  const place = plot.getBoundingClientRect();
  const left = place.left + (x / 100) * place.width + 14;
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  const before = left - tip.offsetWidth - 28;
  tip.style.left = `${window.scrollX + (left <= room ? left : Math.max(before, 8))}px`;
  tip.style.top = `${window.scrollY + place.top + 8}px`;
}

for (const plot of plots) {
  const points = data.lanes[plot.dataset.track];
  let at = points.reduce((best, p, i) => (p[3] > points[best][3] ? i : best), 0);
  plot.classList.add("live");
  plot.setAttribute("tabindex", "0");
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-orientation", "horizontal");
  plot.setAttribute("aria-valuemin", points[0][2]);
  plot.setAttribute("aria-valuemax", points[points.length - 1][2]);
  const go = (to) => {
    at = clamp(to, 0, points.length - 1);
    const [, , time, logit] = points[at];
    plot.setAttribute("aria-valuenow", time);
    plot.setAttribute("aria-valuetext", `${clock(time)}, score ${signed(logit)}, ${standing(logit, plot.dataset.track)}`);
  };
  go(at);
  const follow = (event) => {
    const place = plot.getBoundingClientRect();
    go(nearest(points, (100 * (event.clientX - place.left)) / place.width, (p) => p[0]));
    point(plot, points[at]);
  };
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", clear);
  plot.addEventListener("click", (event) => {
    follow(event);
    openNear(points[at][4]);
  });
  plot.addEventListener("focus", () => {
    if (plot.matches(":focus-visible")) point(plot, points[at]);
  });
  plot.addEventListener("blur", clear);
  plot.addEventListener("keydown", (event) => {
    const jump = Math.max(1, Math.round(points.length / 10));
    const steps = {
      ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1,
      PageUp: jump, PageDown: -jump, Home: -Infinity, End: Infinity,
    };
    if (event.key in steps) {
      event.preventDefault();
      go(at + steps[event.key]);
      point(plot, points[at]);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      openNear(points[at][4]);
    } else if (event.key === "Escape") {
      clear();
    }
  });
}

// --- paper, and links into what is folded ----------------------------------------------------------

// The sheets' head; the policy lets no page carry a style of its own, but its script may add rules.
document.styleSheets[0].insertRule(data.head, document.styleSheets[0].cssRules.length);

// Links to files would stand in a PDF with the folder that the page lies in.
const files = [...document.querySelectorAll("a[href]:not([href^='#'])")].map((link) => [link, link.getAttribute("href")]);
// deepscan serve gives a report an origin of its own, which may ask it for nothing: there the list has everything.
if (location.protocol !== "file:" && origin === "null") {
  for (const [link] of files.splice(0)) link.removeAttribute("href");
}
addEventListener("beforeprint", () => files.forEach(([link]) => link.removeAttribute("href")));
addEventListener("afterprint", () => files.forEach(([link, address]) => link.setAttribute("href", address)));
byId("print").addEventListener("click", () => print());

function unfold() {
  const target = location.hash && byId(location.hash.slice(1));
  for (let at = target; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}
addEventListener("hashchange", unfold);
unfold();
