
// ---- the table of cells: filtered by words of the label, and by axes

const rows = all("#all tbody tr");
const find = $("find");
const choices = all("select[data-filter]");

function filterRows() {
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const row of rows) {
    const label = row.dataset.label.toLowerCase();
    const fits = words.every((word) => label.includes(word)) && choices.every((choice) =>
      !choice.value || row.getAttribute(`data-${choice.dataset.filter.replaceAll("_", "-")}`) === choice.value);
    row.hidden = !fits;
    count += fits;
  }
  $("shown").textContent = `${count} of ${rows.length}`;
  $("none").hidden = count > 0;
}

find.addEventListener("input", filterRows);
for (const choice of choices) choice.addEventListener("change", filterRows);
const form = find.form;
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(filterRows)); // after the fields are empty

// ---- the figures: which cell is a dot? The id of each ends in the number of its cell.

const cells = JSON.parse($("data").textContent);
const NEAR = 24; // pixels

function nearest(picture, event) {
  let best = null, least = NEAR;
  for (const dot of all("g[id]", picture)) {
    const number = /^[wn][a-z-]+-(\d+)$/.exec(dot.id);
    if (!number) continue;
    const box = dot.getBoundingClientRect();
    const distance = Math.hypot(event.clientX - box.x - box.width / 2, event.clientY - box.y - box.height / 2);
    if (distance < least) [best, least] = [Number(number[1]), distance];
  }
  return best;
}

function tell(output, number) {
  for (const row of all("tr.at")) row.classList.remove("at");
  if (number === null) return output.replaceChildren();
  const link = document.createElement("a");
  link.href = `#row-${number}`;
  link.textContent = cells[number].name;
  $(`row-${number}`).classList.add("at");
  output.replaceChildren(link, `: ${cells[number].words}`);
}

for (const figure of all(".chart")) {
  const output = figure.querySelector(".readout");
  for (const picture of all("svg", figure)) {
    const show = (event) => {
      const number = nearest(picture, event);
      if (number !== null || event.type === "click") tell(output, number);
    };
    picture.addEventListener("pointermove", show);
    picture.addEventListener("click", show);
  }
}
// A link to a row that the filter hides shows it.
window.addEventListener("hashchange", () => {
  const row = document.querySelector("#all tr:target");
  if (row && row.hidden) form.reset();
});
