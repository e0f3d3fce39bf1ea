// Adds sorting and filters to the tables of the page.
const PICTURED = 12; // rows whose predictions are shown
const FILTERS = ["backbone", "decoder", "runtime", "precision"];
const failed = (row) => row.kind === "failed";

const boards = JSON.parse(byId("data").textContent).map((board, place) => {
  const section = byId(`board-${place + 1}`);
  const body = section.querySelector("table.rows > tbody");
  const rows = board.rows.map((row, index) => ({
    ...row, index, tr: body.children[index], detail: null,
    name: row.decoder + (row.settings ? ` (${row.settings})` : "")
      + (row.runtime ? ` in ${row.runtime} ${row.precision}` : ""),
  }));
  const column = (key) => board.columns.findIndex((c) => c.key === key);
  const main = board.columns.findIndex((c) => c.key.startsWith("m:"));
  return { ...board, number: place + 1, section, body, rows, column, main };
});

function enhance(board, actions) {
  board.heads = [...board.section.querySelectorAll("table.rows > thead th")];
  board.heads.forEach((head, i) => {
    const button = h("button", { type: "button", click: () => actions.sort(board.columns[i].key) },
      head.textContent);
    head.replaceChildren(button);
  });
  for (const row of board.rows) {
    const name = row.tr.querySelector(".name");
    row.button = h("button", {
      type: "button", class: "name", "aria-expanded": "false", click: () => actions.open(row.key),
    }, name.textContent);
    name.replaceWith(row.button);
  }
  const commands = board.section.querySelector("details.commands");
  commands.addEventListener("toggle", () => {
    for (const place of commands.querySelectorAll("dd")) {
      place.replaceChildren(commandBox(place.textContent, `the command of ${place.previousElementSibling.textContent}`));
    }
  }, { once: true });
  const short = board.section.querySelector(".short");
  board.short = short && { place: short, text: short.textContent };
  board.none = h("tr", { class: "none", hidden: true }, h("td", { colspan: board.columns.length },
    "No rows match: ", h("button", { type: "button", click: actions.clear }, "clear filters")));
  board.body.append(board.none);
}

const natural = (column) => (column.better === 1 ? "descending" : "ascending");

function sorted(board, key, direction) {
  const i = board.column(key);
  const sign = direction === "descending" ? -1 : 1;
  return [...board.rows].sort((a, b) => {
    const [x, y] = [a.values[i], b.values[i]];
    if (failed(a) !== failed(b)) return failed(a) - failed(b);
    if (i < 0 || x === y) return a.index - b.index;
    if (x === null || y === null) return x === null ? 1 : -1;
    const order = typeof x === "string" ? (x < y ? -1 : 1) : x - y;
    return sign * order;
  });
}

function matches(row, state) {
  const front = row.pareto || [];
  return FILTERS.every((key) => !state[key] || row[key] === state[key])
    && (!state.front || (state.front === "any" ? front.length > 0 : front.includes(state.front)));
}

// shows the predictions of the first shown rows, in their order
function arrangePictures(board, shown) {
  const place = board.section.querySelector(".predictions");
  if (!place) return;
  const strips = [...place.querySelectorAll(".strip")].map((strip) => [strip,
    new Map([...strip.querySelectorAll("[data-row]")].map((figure) => [Number(figure.dataset.row), figure]))]);
  const have = shown.filter((row) => strips.some(([, figures]) => figures.has(row.index)));
  const first = have.slice(0, PICTURED);
  place.hidden = !first.length;
  place.querySelector("h3 small").textContent = have.length > first.length
    ? `of the first ${first.length} of ${have.length} rows` : "";
  for (const [strip, figures] of strips) {
    for (const figure of figures.values()) figure.hidden = true;
    for (const figure of first.map((row) => figures.get(row.index)).filter((f) => f)) {
      figure.hidden = false;
      strip.append(figure);
    }
    strip.hidden = !strip.querySelector("[data-row]:not([hidden])");
  }
}

// sorts the rows and hides those that do not match; returns the shown ones
function arrange(board, state) {
  const order = sorted(board, state.sort, state.dir);
  const shown = order.filter((row) => matches(row, state));
  for (const row of order) {
    row.tr.hidden = !matches(row, state);
    board.body.append(row.tr);
    if (row.detail) {
      row.detail.hidden = row.tr.hidden;
      board.body.append(row.detail);
    }
  }
  arrangePictures(board, shown);
  if (board.short) {
    const all = shown.length === board.rows.length;
    board.short.place.textContent = (all ? "" : "Of all rows: ") + board.short.text;
  }
  board.none.hidden = shown.length > 0;
  board.body.append(board.none);
  board.heads.forEach((head, i) => {
    const by = state.sort ? board.columns[i].key === state.sort : board.columns[i].key === "rank";
    if (by) head.setAttribute("aria-sort", state.sort ? state.dir : "ascending");
    else head.removeAttribute("aria-sort");
  });
  return shown;
}
