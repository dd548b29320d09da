// Makes a page that is complete without it answer to pointer and keyboard.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");
const viewer = document.getElementById("viewer");
const SVG = "http://www.w3.org/2000/svg";

document.documentElement.classList.add("scripted");

const signed = (logit) => (logit < 0 ? "\u2212" : "+") + Math.abs(logit).toFixed(2);

// As time_code in judgement/timeline.py writes it.
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
  return logit >= high ? "above the thresholds" : logit <= low ? "below the thresholds" : "between the thresholds";
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

// --- a frame and its map: the slider between them ----------------------------------------

function compare(stack) {
  const slide = document.createElement("input");
  slide.type = "range";
  slide.className = "slide";
  slide.min = 0;
  slide.max = 100;
  slide.value = stack.dataset.compare;
  slide.setAttribute("aria-label", "Part of the frame shown without the map, from the left, in percent");
  const divider = document.createElement("span");
  divider.className = "divider";
  const ends = document.createElement("p");
  ends.className = "slide-ends";
  for (const words of ["\u2190 map everywhere", "frame alone \u2192"]) {
    ends.append(Object.assign(document.createElement("span"), { textContent: words }));
  }
  const move = () => {
    stack.style.setProperty("--at", `${slide.value}%`);
    slide.setAttribute("aria-valuetext", `${slide.value} % frame alone, the rest with the map`);
  };
  slide.addEventListener("input", move);
  stack.append(divider);
  stack.after(slide, ends);
  move();
  // The picture itself can be wiped too.
  const wipe = (event) => {
    const place = stack.getBoundingClientRect();
    slide.value = (100 * (event.clientX - place.left)) / place.width;
    move();
  };
  stack.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    stack.setPointerCapture(event.pointerId);
    wipe(event);
  });
  stack.addEventListener("pointermove", (event) => {
    if (stack.hasPointerCapture(event.pointerId)) wipe(event);
  });
}

document.querySelectorAll("main [data-compare]").forEach(compare);

// --- the frame viewer --------------------------------------------------------------------------

let open = 0; // place in data.frames

function show(place) {
  open = Math.min(Math.max(place, 0), data.frames.length - 1);
  const kept = document.getElementById(`frame-${data.frames[open]}`);
  const body = document.getElementById("viewer-body");
  body.replaceChildren(kept.content.cloneNode(true));
  body.querySelectorAll("[data-compare]").forEach(compare);
  document.getElementById("viewer-title").textContent = kept.dataset.title;
  document.getElementById("earlier").setAttribute("aria-disabled", open === 0);
  document.getElementById("later").setAttribute("aria-disabled", open === data.frames.length - 1);
  if (!viewer.open) viewer.showModal();
}

function openNear(index) {
  if (data.frames.length) show(nearest(data.frames, index));
}

for (const button of document.querySelectorAll("[data-open]")) {
  button.addEventListener("click", () => openNear(Number(button.dataset.open)));
}
document.getElementById("earlier").addEventListener("click", () => show(open - 1));
document.getElementById("later").addEventListener("click", () => show(open + 1));
document.getElementById("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("click", (event) => {
  if (event.target === viewer) viewer.close(); // the backdrop
});
viewer.addEventListener("keydown", (event) => {
  if (event.target.type === "range") return; // arrows move the slider
  if (event.key === "ArrowLeft") show(open - 1);
  else if (event.key === "ArrowRight") show(open + 1);
});

// --- strips: one stop for the Tab key each, arrows within ---------------------------------------

for (const strip of document.querySelectorAll(".strip")) {
  const cells = [...strip.querySelectorAll(".cell")];
  cells.slice(1).forEach((cell) => (cell.tabIndex = -1));
  strip.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    const from = cells.indexOf(document.activeElement);
    const to = Math.min(Math.max(from + steps[event.key], 0), cells.length - 1);
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

function mark(kind, attributes) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

function clear() {
  tip.hidden = true;
  document.querySelectorAll(".cursor, .here").forEach((element) => element.remove());
}

/** Point out one instant: a line through all lanes, a dot on this one, and a card beside it. */
function point(plot, [x, y, time, logit, index]) {
  clear();
  for (const other of plots) {
    other.append(mark("line", { class: "cursor", x1: `${x}%`, x2: `${x}%`, y1: 0, y2: "100%" }));
  }
  plot.append(mark("circle", { class: "here", cx: `${x}%`, cy: `${y}%`, r: 5 }));
  const words = document.createElement("span");
  words.append(clock(time), Object.assign(document.createElement("b"), { textContent: signed(logit) }));
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
    at = Math.min(Math.max(to, 0), points.length - 1);
    const [, , time, logit] = points[at];
    plot.setAttribute("aria-valuenow", time);
    plot.setAttribute("aria-valuetext", `${clock(time)}, logit ${signed(logit)}, ${standing(logit, plot.dataset.track)}`);
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
