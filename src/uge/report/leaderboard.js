// Sorts a table by the column whose button is pressed; a second press turns the order round. Empty cells stay last.
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const heading = button.closest("th"), table = button.closest("table"), body = table.tBodies[0];
    const at = heading.cellIndex, now = heading.getAttribute("aria-sort");
    const order = now ? (now === "ascending" ? "descending" : "ascending") : heading.dataset.first;
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", order);
    const key = row => row.cells[at].dataset.value;
    const compare = (a, b) => at === 0 ? a.localeCompare(b) : Number(a) - Number(b);
    const rows = [...body.rows].sort((a, b) => {
      const x = key(a), y = key(b);
      if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
      return order === "ascending" ? compare(x, y) : compare(y, x);
    });
    body.append(...rows);
    table.parentElement.querySelector("[role=status]").textContent = `Sorted by ${button.textContent.trim()}, ${order}.`;
  });
}
