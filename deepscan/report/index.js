// Makes the table sort and filter; without this it is a table. What is chosen stays in the address.
"use strict";

const table = document.querySelector(".inputs");
const body = table.tBodies[0];
const inOrder = [...table.rows].slice(1); // the most suspicious first
const rows = [...inOrder];
const atOnce = body.rows.length;
const unseen = new Map(); // the later rows' pictures, read when one of them is shown
const heads = [...document.querySelectorAll("th[data-key]")];
const words = document.getElementById("words");
const finding = document.getElementById("finding");
const order = document.getElementById("order");

const places = new Map(inOrder.map((row, place) => [row, place]));
const known = new Map();
const texts = (row) => known.get(row) ?? known.set(row, row.textContent.toLowerCase()).get(row);
const inWords = new Intl.Collator("en", { numeric: true });

/** Empty values come last whichever way the rest is sorted. */
function compare(a, b, numbers, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return sign * (numbers ? Number(a) - Number(b) : inWords.compare(a, b));
}

const names = { input: "name", finding: "finding", probability: "probability", score: "score", faces: "faces", cautions: "cautions" };

for (const head of heads) {
  const key = head.dataset.key;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  for (const [sign, way] of head.dataset.kind === "number" ? [["-", "highest first"], ["", "lowest first"]] : [["", "A to Z"], ["-", "Z to A"]]) {
    order.append(new Option(`${names[key]}, ${way}`, sign + key));
  }
  button.addEventListener("click", () => {
    // Numbers start with the highest, which is what one looks for.
    const ways = head.dataset.kind === "number" ? ["-" + key, key] : [key, "-" + key];
    order.value = order.value === ways[0] ? ways[1] : ways[0];
    sort();
    show();
    keep();
  });
}

function sort() {
  const key = order.value.replace("-", "");
  const head = heads.find((other) => other.dataset.key === key);
  heads.forEach((other) => other.removeAttribute("aria-sort"));
  if (head) {
    const sign = order.value.startsWith("-") ? -1 : 1;
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const numbers = head.dataset.kind === "number";
    const values = new Map(rows.map((row) => [row, row.cells[head.cellIndex].dataset.value]));
    rows.sort((a, b) => compare(values.get(a), values.get(b), numbers, sign) || places.get(a) - places.get(b));
  } else {
    rows.sort((a, b) => places.get(a) - places.get(b));
  }
}

let waiting = []; // rows that are shown, and not in the table yet
let timer = 0;

/** Show the rows that are asked for: the first ones now, the others when there is time. */
function show() {
  const wanted = words.value.trim().toLowerCase();
  const left = rows.filter((row) => (!finding.value || row.dataset.verdict === finding.value) && texts(row).includes(wanted));
  body.replaceChildren();
  add(left.slice(0, atOnce));
  waiting = left.slice(atOnce);
  later();
  document.getElementById("found").textContent = left.length === rows.length ? "" : `${left.length} of ${rows.length} shown`;
}

function later() {
  clearTimeout(timer);
  if (waiting.length) timer = setTimeout(() => { add(waiting.splice(0, atOnce)); later(); }, 30);
}

function add(more) {
  for (const row of more) {
    const cell = row.cells[0];
    const picture = !cell.firstChild && pictures().get(row);
    if (picture) cell.append(Object.assign(new Image(64, 64), { src: picture, alt: "", loading: "lazy", decoding: "async" }));
  }
  body.append(...more);
}

/** The pictures of the later rows: a thousand in the table itself would keep the page from answering. */
function pictures() {
  if (!unseen.size) JSON.parse(document.getElementById("pictures").textContent).forEach((picture, i) => unseen.set(inOrder[atOnce + i], picture));
  return unseen;
}

window.addEventListener("beforeprint", () => add(waiting.splice(0)));

/** Put what is chosen into the address, so that it can be kept, sent, and come back to. */
function keep() {
  const chosen = new URLSearchParams();
  for (const field of [words, finding, order]) if (field.value) chosen.set(field.id, field.value);
  history.replaceState(null, "", `#${chosen}`);
}

function follow() {
  const chosen = new URLSearchParams(location.hash.slice(1));
  for (const field of [words, finding, order]) {
    field.value = chosen.get(field.id) || "";
    if (field.selectedIndex === -1) field.value = ""; // an address that names nothing that is here
  }
  sort();
  show();
}

for (const field of [words, finding]) field.addEventListener("input", () => { show(); keep(); });
order.addEventListener("input", () => { sort(); show(); keep(); });
window.addEventListener("hashchange", follow);
const form = document.querySelector(".filters");
form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
follow();
