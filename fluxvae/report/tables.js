"use strict";
// Shared by every page: what all scripts use, and tables that sort.
const $ = (id) => document.getElementById(id);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- sortable tables: numbers by data-v, words by the text, what has none last

function sortBy(table, column, descending) {
  const key = (row) => {
    const cell = row.cells[column];
    if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
    return cell.classList.contains("n") || cell.textContent.trim() === "–" ? null : cell.textContent.trim();
  };
  const order = (a, b) => {
    if (a === null || b === null) return (a === null) - (b === null);
    const before = typeof a === "number" && typeof b === "number"
      ? (a < b ? -1 : a > b ? 1 : 0)
      : String(a).localeCompare(String(b), "en", { numeric: true });
    return descending ? -before : before;
  };
  const body = table.tBodies[0];
  const rows = [...body.rows].map((row) => [key(row), row]).sort((a, b) => order(a[0], b[0]));
  body.append(...rows.map(([, row]) => row));
}

for (const table of all("table.sortable"))
  for (const button of all("button.sort", table))
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const descending = head.getAttribute("aria-sort") === "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, head.cellIndex, descending);
    });
