// Makes the table sort and filter; without this it is a table.
"use strict";

const body = document.querySelector("tbody");
const rows = [...body.rows];
const heads = [...document.querySelectorAll("th")];
const words = document.getElementById("words");
const finding = document.getElementById("finding");

const value = (row, column) => row.cells[column].dataset.value;
const inWords = new Intl.Collator("en", { numeric: true });

/** Empty values come last whichever way the rest is sorted. */
function compare(a, b, numbers, sign) {
  if (a === "" || b === "") return (a === "") - (b === "");
  return sign * (numbers ? Number(a) - Number(b) : inWords.compare(a, b));
}

heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = head.textContent;
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const numbers = head.dataset.kind === "number";
    const before = head.getAttribute("aria-sort");
    // Numbers start with the largest, which is what one looks for.
    const next = before ? (before === "ascending" ? "descending" : "ascending") : numbers ? "descending" : "ascending";
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", next);
    const sign = next === "ascending" ? 1 : -1;
    rows.sort((a, b) => compare(value(a, column), value(b, column), numbers, sign));
    body.append(...rows);
  });
});

function filter() {
  const wanted = words.value.trim().toLowerCase();
  let left = 0;
  for (const row of rows) {
    row.hidden =
      (finding.value !== "" && row.dataset.verdict !== finding.value) ||
      !row.textContent.toLowerCase().includes(wanted);
    left += !row.hidden;
  }
  document.getElementById("found").textContent = left === rows.length ? "" : `${left} of ${rows.length} shown`;
}

words.addEventListener("input", filter);
finding.addEventListener("change", filter);
const form = document.querySelector(".filters");
form.hidden = false;
form.addEventListener("submit", (event) => event.preventDefault());
