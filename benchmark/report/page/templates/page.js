// The state is in the address after #, so that a link reproduces the view.
const LEVELS = { task: "Task", dataset: "Data set", device: "Device", protocol: "Protocol" };
const EMPTY = { task: "", dataset: "", device: "", protocol: "", backbone: "", decoder: "", runtime: "", precision: "", front: "", sort: "", dir: "", x: "", row: "" };
const FRONTS = { "": "all rows", any: "on any front", latency: "latency", params: "parameters", macs: "MACs", memory: "memory" };
let state = { ...EMPTY };
let current = null;

// the board that the state names; missing or unknown levels take the first value
function chosen() {
  let left = boards;
  if (!state.task) goTo(boards.reduce((a, b) => (b.rows.length > a.rows.length ? b : a)));
  Object.keys(LEVELS).forEach((level, i) => {
    const there = left.filter((board) => board.place[i] === state[level]);
    left = there.length ? there : left.filter((board) => board.place[i] === left[0].place[i]);
    state[level] = left[0].place[i];
  });
  return left[0];
}

function goTo(board) {
  Object.keys(LEVELS).forEach((level, i) => { state[level] = board.place[i]; });
}

function options(level) {
  const i = Object.keys(LEVELS).indexOf(level);
  const alike = boards.filter((b) => Object.keys(LEVELS).slice(0, i).every((l, n) => b.place[n] === state[l]));
  return [...new Set(alike.map((b) => b.place[i]))];
}

function choice(name, label, entries, value) {
  const select = h("select", { name, change: () => set({ [name]: select.value, row: "" }, `select[name=${name}]`) },
    entries.map(([key, text]) => h("option", { value: key, selected: key === value }, text)));
  return h("label", {}, label, select);
}

function controls(board, shown) {
  const distinct = (key) => [...new Set(board.rows.map((row) => row[key]).filter((v) => v))].sort();
  const fronts = Object.entries(FRONTS).filter(([key]) => !["latency", "params", "macs", "memory"].includes(key) || board.column(key) >= 0);
  const all = (key) => [["", "all"], ...distinct(key).map((v) => [v, v])];
  const levels = Object.keys(LEVELS).map((level) => [level, options(level)])
    .filter(([level, values]) => values.some((v) => v) && (level !== "protocol" || values.length > 1));
  const ships = board.rows.some((row) => row.runtime);
  const filtered = FILTERS.some((key) => state[key]) || state.front || state.sort;
  byId("controls").replaceChildren(
    ...levels.map(([level, values]) => choice(level, LEVELS[level], values.map((v) => [v, v]), state[level])),
    choice("backbone", "Backbone", all("backbone"), state.backbone),
    choice("decoder", "Decoder", all("decoder"), state.decoder),
    ...(ships ? [choice("runtime", "Runtime", all("runtime"), state.runtime),
      choice("precision", "Precision", all("precision"), state.precision)] : []),
    choice("front", "Pareto front", fronts, state.front),
    ...(filtered ? [h("button", { type: "button", id: "clear", click: actions.clear }, "Clear filters")] : []),
    h("output", { id: "count" }, `${shown} of ${board.rows.length} rows`));
}

function hash(changes) {
  const entries = Object.entries({ ...state, ...changes }).filter(([, value]) => value);
  return `#${new URLSearchParams(entries)}`;
}

function render(focus) {
  const board = chosen();
  const focused = document.activeElement; // it loses the focus when its row moves
  for (const key of FILTERS) {
    if (!board.rows.some((row) => row[key] === state[key])) state[key] = "";
  }
  if (!(state.front in FRONTS)) state.front = "";
  if (board.column(state.sort) < 0) Object.assign(state, { sort: "", dir: "" });
  if (!["ascending", "descending"].includes(state.dir)) state.dir = state.sort ? "ascending" : "";
  current = board;
  for (const other of boards) other.section.hidden = other !== board;
  for (const row of board.rows) setOpen(board, row, row.key === state.row ? hash() : null);
  const shown = arrange(board, state);
  document.querySelectorAll(".wirings > figure").forEach((figure, i) => {
    figure.hidden = !shown.some((row) => row.wiring === i);
  });
  const wirings = byId("wirings");
  if (wirings) wirings.hidden = !shown.some((row) => row.wiring !== undefined);
  controls(board, shown.length);
  drawPlots(board, shown, state, actions);
  hideTip();
  if (focus) document.querySelector(focus)?.focus();
  else if (focused.isConnected) focused.focus({ preventScroll: true });
}

function set(changes, focus) {
  state = { ...state, ...changes };
  render(focus);
  history.replaceState(null, "", hash());
  say(byId("count").textContent);
}

const actions = {
  set,
  clear: () => set({ backbone: "", decoder: "", runtime: "", precision: "", front: "", sort: "", dir: "" }, "select[name=backbone]"),
  sort: (key) => {
    const first = natural(current.columns[current.column(key)]);
    const other = first === "ascending" ? "descending" : "ascending";
    set({ sort: key, dir: state.sort === key && state.dir === first ? other : first });
  },
  open: (key) => {
    const opens = state.row !== key;
    const row = current.rows.find((r) => r.key === key);
    const away = document.activeElement !== row.button;
    set({ row: opens ? key : "" });
    if (away) row.button.focus({ preventScroll: true });
    if (away && opens) row.tr.scrollIntoView({ block: "start" });
  },
};

function read() {
  const text = location.hash.slice(1);
  const board = /^board-(\d+)$/.exec(text);
  if (board && boards[board[1] - 1]) {
    state = { ...EMPTY };
    goTo(boards[board[1] - 1]);
  } else if (text.includes("=")) {
    const given = Object.fromEntries(new URLSearchParams(text));
    state = Object.fromEntries(Object.keys(EMPTY).map((key) => [key, given[key] || ""]));
  } else if (current) return; // another anchor: keep the view
  render();
  if (board) current.section.scrollIntoView();
  else current.rows.find((row) => row.detail)?.tr.scrollIntoView({ block: "start", behavior: "instant" });
}

if (boards.length) {
  for (const board of boards) enhance(board, actions);
  document.querySelectorAll("main .scroll, .overall .scroll").forEach(hinted);
  byId("controls").hidden = false;
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", read);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) drawPlots(current, arrange(current, state), state, actions);
    width = innerWidth;
  });
  read();
}
