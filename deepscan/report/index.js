// Makes the table sort and filter; without this it is a table. What is chosen stays in the address.
"use strict";

const body = document.querySelector("tbody");
const rows = [...body.rows];
const heads = [...document.querySelectorAll("th[data-key]")];
const words = document.getElementById("words");
const finding = document.getElementById("finding");
const order = document.getElementById("order");

const places = new Map(rows.map((row, place) => [row, place])); // the most suspicious first
const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
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
  body.append(...rows);
}

function filter() {
  const wanted = words.value.trim().toLowerCase();
  let left = 0;
  for (const row of rows) {
    row.hidden = (finding.value !== "" && row.dataset.verdict !== finding.value) || !texts.get(row).includes(wanted);
    left += !row.hidden;
  }
  document.getElementById("found").textContent = left === rows.length ? "" : `${left} of ${rows.length} shown`;
}

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
  filter();
}

for (const field of [words, finding]) field.addEventListener("input", () => { filter(); keep(); });
order.addEventListener("input", () => { sort(); keep(); });
window.addEventListener("hashchange", follow);
const form = document.querySelector(".filters");
form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
if (location.hash.length > 1) follow();
