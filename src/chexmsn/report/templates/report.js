"use strict";
// The only script: tables sort by a press on a column's head. Without it the page reads the same.
const value = (row, column) => row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
const compare = (a, b) => (a === "" || b === "") ? (a === "") - (b === "") : (isNaN(a) || isNaN(b)) ? a.localeCompare(b) : a - b;

function sort(table, head) {
  const up = head.getAttribute("aria-sort") !== "ascending";
  const rows = [...table.tBodies[0].rows];
  rows.sort((a, b) => {
    const [x, y] = [value(a, head.cellIndex), value(b, head.cellIndex)];
    return (up || x === "" || y === "") ? compare(x, y) : -compare(x, y);
  });
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, head));
    head.append(button);
  }
}
