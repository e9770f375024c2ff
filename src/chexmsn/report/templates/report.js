"use strict";
// The only script: tables sort by a press on a column's head, a table can be saved as CSV, and a number under the
// pointer or the keyboard's focus says what it means. Without it the page reads the same.
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

// A table as CSV: numbers with all their digits, intervals in a column of their own beside them.
function words(cell) {
  const copy = cell.cloneNode(true);
  for (const extra of copy.querySelectorAll("small, [aria-hidden]")) extra.remove();
  return copy.textContent.replace(/\s+/g, " ").trim();
}

function csv(table) {
  const heads = [...table.tHead.rows[0].cells], rows = [...table.tBodies[0].rows];
  const plain = text => text.replaceAll("\u2212", "-").replace(/\s+/g, " ").trim();
  const quoted = text => /[",]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const ends = heads.map((_, k) => rows.map(row => row.cells[k].querySelector("small")?.textContent).find(Boolean));
  const of = (cell, k) => {
    const number = cell.classList.contains("number") && !isNaN(cell.dataset.sort);
    return [number ? cell.dataset.sort : words(cell), ...(ends[k] ? [cell.querySelector("small")?.textContent ?? ""] : [])];
  };
  const head = heads.flatMap((cell, k) => [words(cell), ...(ends[k] ? [`${words(cell)} (${/ to |interval/.test(ends[k]) ? "interval" : "value"})`] : [])]);
  const lines = [head, ...rows.map(row => [...row.cells].flatMap(of))];
  return lines.map(line => line.map(text => quoted(plain(text))).join(",")).join("\n") + "\n";
}

function save(table, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
  link.download = `${name.toLowerCase().replace(/[^a-z0-9]+/g, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

for (const table of document.querySelectorAll("table.sortable")) {
  const region = table.closest(".scroll"), button = document.createElement("button");
  button.type = "button";
  button.className = "save";
  button.textContent = "Save as CSV";
  button.setAttribute("aria-label", `Save as CSV: ${region.ariaLabel}`);
  button.addEventListener("click", () => save(table, region.ariaLabel));
  region.after(button);
}

// Arrow keys walk through a table's numbers; Tab goes from table to table.
const tip = document.createElement("div");
tip.id = "tip";
tip.setAttribute("role", "status");
tip.hidden = true;
document.body.append(tip);

function sentence(cell) {
  const table = cell.closest("table");
  const head = table.tHead.rows[0].cells[cell.cellIndex];
  const row = [...cell.parentElement.cells].filter(other => other.tagName === "TH" || other.classList.contains("model"));
  const names = [...row.map(other => other.textContent.trim()), head.textContent.trim()];
  const small = cell.querySelector("small")?.textContent.trim();
  const number = (cell.querySelector("b") ?? cell).textContent.trim();
  return `${names.join(", ")}: ${number}${small ? ` (${small})` : ""}. ${head.dataset.help ?? ""}`;
}

function tell(cell) {
  tip.textContent = sentence(cell);
  tip.hidden = false;
  const box = cell.getBoundingClientRect();
  const left = Math.min(box.left, document.documentElement.clientWidth - tip.offsetWidth - 8);
  const above = box.top - tip.offsetHeight - 6;
  tip.style.left = `${Math.max(left, 8)}px`;
  tip.style.top = `${above < 8 ? box.bottom + 6 : above}px`;
}

function hush() {
  tip.hidden = true;
}

function step(cell, key) {
  const row = cell.parentElement;
  const next = {
    ArrowLeft: cell.previousElementSibling, ArrowRight: cell.nextElementSibling,
    ArrowUp: row.previousElementSibling?.cells[cell.cellIndex], ArrowDown: row.nextElementSibling?.cells[cell.cellIndex],
  }[key];
  return next?.tagName === "TD" ? next : null;
}

for (const table of document.querySelectorAll("table:has(th[data-help])")) {
  const cells = table.tBodies[0].querySelectorAll("td");
  for (const cell of cells) cell.tabIndex = -1;
  if (cells.length) cells[0].tabIndex = 0;
  table.tBodies[0].addEventListener("mouseover", event => {
    const cell = event.target.closest("td.number");
    if (cell) tell(cell); else hush();
  });
  table.addEventListener("mouseleave", hush);
  table.tBodies[0].addEventListener("focusin", event => event.target.matches("td.number") ? tell(event.target) : hush());
  table.tBodies[0].addEventListener("focusout", hush);
  table.tBodies[0].addEventListener("keydown", event => {
    if (event.key === "Escape") hush();
    const next = event.target.matches("td") && step(event.target, event.key);
    if (!next) return;
    event.preventDefault();
    event.target.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });
}
addEventListener("scroll", hush, { passive: true });

// On paper nothing can be unfolded: all parts are open while the page prints, for browsers whose style sheet cannot.
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("details:not([open])")];
  for (const part of opened) part.open = true;
});
addEventListener("afterprint", () => {
  for (const part of opened) part.open = false;
});
