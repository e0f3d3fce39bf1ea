// Plots as SVG in screen pixels. Tab moves to the marks of a plot, arrow keys between them.
const MOST = { bars: 25, curves: 8 };
const COSTS = { latency: "latency (ms)", params: "parameters (M)", macs: "GMACs", memory: "memory (MB)" };
const ONCE = {
  val: "Validation ran once: there is no learning curve of it.",
  loss: "Trained for one epoch: there is no curve of the training loss.",
};
const DASHES = [null, "7 3", "2 2", "9 3 2 3", "4 4", "12 3", "1 3", "6 2 1 2"];
const SHAPES = [
  "M5 0A5 5 0 1 1-5 0A5 5 0 1 1 5 0z", "M-4.5-4.5H4.5V4.5H-4.5z", "M0-6L5.6 4.2H-5.6z",
  "M0-6.3L6.3 0L0 6.3L-6.3 0z", "M0 6L5.6-4.2H-5.6z",
  "M-2-5.5H2V-2H5.5V2H2V5.5H-2V2H-5.5V-2H-2z", "M-5.5-3L0-6L5.5-3V3L0 6L-5.5 3z",
  "M0-6.5L1.8-2L6.3-2L2.8 1L4 5.6L0 3L-4 5.6L-2.8 1L-6.3-2L-1.8-2z",
];

// decoders of the most boards first, so that they look alike on all boards
const boardsOf = new Map();
for (const board of boards) {
  for (const name of new Set(board.rows.map((row) => row.decoder))) {
    boardsOf.set(name, (boardsOf.get(name) || 0) + 1);
  }
}
const decoders = [...boardsOf.keys()].sort()
  .sort((a, b) => boardsOf.get(b) - boardsOf.get(a));
const openTables = new Set();

let drawn = []; // decoders of the current board, so that colours repeat as late as possible

function look(row) {
  const i = drawn.indexOf(row.decoder);
  return { colour: `c${i % 7}`, shape: SHAPES[i % SHAPES.length] };
}

function scale(values, from, to, { log = false, zero = false } = {}) {
  let [low, high] = [Math.min(...values), Math.max(...values)];
  if (zero) [low, high] = [Math.min(low, 0), Math.max(high, 0)];
  const f = log ? Math.log10 : (v) => v;
  let [a, b] = [f(low), f(high)];
  const room = (b - a || Math.abs(b) || 1) * 0.06;
  [a, b] = [zero && low === 0 ? 0 : a - room, zero && high === 0 ? 0 : b + room];
  const at = (v) => from + ((f(v) - a) / (b - a)) * (to - from);
  const count = Math.max(2, Math.floor(Math.abs(to - from) / (to > from ? 70 : 45)));
  return { at, ticks: log ? logTicks(a, b, count) : ticks(a, b, count) };
}

function ticks(a, b, count) {
  const raw = (b - a) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].find((m) => m * power >= raw) * power;
  const values = [];
  for (let i = Math.ceil(a / step); i * step <= b; i += 1) values.push(i * step);
  return values.map((v) => [v, Number(v.toPrecision(6)).toString()]);
}

function logTicks(a, b, count) {
  for (const parts of [[1, 2, 5], [1, 3], [1]]) {
    const values = [];
    for (let p = Math.floor(a); p <= b; p += 1) {
      for (const m of parts) {
        const v = m * 10 ** p;
        if (Math.log10(v) >= a && Math.log10(v) <= b) values.push([v, Number(v.toPrecision(3)).toString()]);
      }
    }
    if (values.length <= count + 1 || parts.length === 1) return values;
  }
  return [];
}

function axes(box, x, y, xTitle, yTitle) {
  const parts = [];
  for (const [v, text] of x ? x.ticks : []) {
    parts.push(s("line", { x1: x.at(v), x2: x.at(v), y1: box.top, y2: box.bottom }),
      s("text", { x: x.at(v), y: box.bottom + 16, "text-anchor": "middle" }, text));
  }
  for (const [v, text] of y ? y.ticks : []) {
    parts.push(s("line", { x1: box.left, x2: box.right, y1: y.at(v), y2: y.at(v) }),
      s("text", { x: box.left - 6, y: y.at(v) + 4, "text-anchor": "end" }, text));
  }
  parts.push(s("text", { x: box.right, y: box.bottom + 33, "text-anchor": "end" }, xTitle),
    s("text", { x: 0, y: 11 }, yTitle));
  return s("g", { class: "axis", "aria-hidden": "true" }, parts);
}

// a row's mark: hover or focus shows the tooltip, Enter or a click opens the row
function mark(row, text, content, open) {
  const node = s("g", {
    class: `mark ${row.kind} ${look(row).colour}`, tabindex: "-1", role: "button",
    "aria-label": text.replaceAll("\n", ", "),
    mouseenter: () => showTip(text, node), mouseleave: hideTip,
    focus: () => showTip(text, node), blur: hideTip, click: () => open(row.key),
    keydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      open(row.key);
    },
  }, content);
  return node;
}

function roving(marks, label) {
  if (marks.length) marks[0].setAttribute("tabindex", "0");
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
  return s("g", {
    role: "group", "aria-label": `${label}: arrow keys move between the marks`,
    keydown: (event) => {
      const now = marks.indexOf(document.activeElement);
      const to = { Home: 0, End: marks.length - 1 }[event.key] ?? now + (step[event.key] ?? NaN);
      if (now < 0 || !marks[to]) {
        if (event.key === "Escape") hideTip();
        return;
      }
      event.preventDefault();
      marks[now].setAttribute("tabindex", "-1");
      marks[to].setAttribute("tabindex", "0");
      marks[to].focus();
    },
  }, marks);
}

function tooltip(board, row) {
  const column = board.columns[board.main];
  const lines = [row.name, row.backbone, `${column.title} ${short(row.values[board.main], 3)}`
    + (row.interval ? ` (${row.interval.map((v) => short(v, 3)).join("–")})` : "")];
  for (const key of ["latency", "params", "macs", "memory"]) {
    const i = board.column(key);
    if (i >= 0 && row.values[i] !== null) lines.push(`${short(row.values[i])} ${board.columns[i].title}`);
  }
  if (row.disturbed) lines.push("† timed while other work ran");
  if (row.kind === "reported") lines.push("reported, not measured here");
  return lines.join("\n");
}

function plot(name, title, draw, titles, rows, extra) {
  const canvas = h("div", {});
  const details = h("details", { open: openTables.has(name), toggle: () => {
    openTables[details.open ? "add" : "delete"](name);
  } }, h("summary", {}, "Table"), hinted(h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${title}` }, table(titles, rows))));
  const figure = h("figure", { class: `plot ${name}`, "aria-label": title }, h("h3", {}, title, extra), canvas, details);
  return { figure, draw: () => canvas.replaceChildren(...draw(Math.max(canvas.clientWidth, 240))) };
}

function legend(rows, curves) {
  const names = [...new Set(rows.map((row) => row.decoder))].sort();
  return h("ul", { class: "keys", "aria-hidden": "true" }, names.map((name) => {
    const { colour, shape } = look({ decoder: name });
    return h("li", {}, s("svg", { viewBox: "-8 -8 16 16", class: `mark ${colour}` },
      s("path", { class: "shape", d: shape })), name);
  }), curves);
}

function scatter(board, rows, cost, open, extra) {
  const i = board.column(cost);
  const y = board.columns[board.main];
  const points = rows.filter((row) => row.values[i] != null && row.values[board.main] != null)
    .sort((a, b) => a.values[i] - b.values[i]);
  const title = `${y.title} against ${COSTS[cost].replace(/ \(.*/, "")}`;
  const draw = (width) => {
    const box = { left: 46, right: width - 8, top: 22, bottom: 290 };
    if (!points.length) return [h("p", { class: "legend" }, "No row has both.")];
    const xs = points.map((row) => row.values[i]);
    const log = Math.min(...xs) > 0 && Math.max(...xs) > 10 * Math.min(...xs);
    const sx = scale(xs, box.left + 6, box.right - 6, { log });
    const sy = scale(points.map((row) => row.values[board.main]), box.bottom, box.top + 6);
    const at = (row) => [sx.at(row.values[i]), sy.at(row.values[board.main])];
    const front = points.filter((row) => (row.pareto || []).includes(cost)).map(at);
    const step = front.map(([px, py], n) => (n ? `H${px}V${py}` : `M${px} ${py}`)).join("");
    const marks = points.map((row) => {
      const [px, py] = at(row);
      return mark(row, tooltip(board, row), s("g", { transform: `translate(${px} ${py})` },
        s("circle", { class: "halo", r: 12 }), s("path", { class: "shape", d: look(row).shape })), open);
    });
    const better = y.better === 1 ? "higher is better" : "lower is better";
    return [
      s("svg", { height: 330, viewBox: `0 0 ${width} 330` },
        axes(box, sx, sy, COSTS[cost] + (log ? ", logarithmic" : ""), `${y.title}, ${better}`),
        front.length ? s("path", { class: "step", d: `${step}H${box.right}` }) : null,
        roving(marks, title)),
      legend(points, front.length ? h("li", {}, s("svg", { viewBox: "0 0 16 16", class: "plot" },
        s("path", { class: "step", d: "M0 13H6V5H16" })), "Pareto front") : null),
    ];
  };
  const cells = points.map((row) => [row.name, row.backbone, short(row.values[board.main], 3),
    short(row.values[i]), (row.pareto || []).includes(cost) ? "yes" : ""]);
  return plot(cost, title, draw, ["decoder", "backbone", y.title, COSTS[cost], "on the front"], cells, extra);
}

function bars(board, rows, open) {
  const column = board.columns[board.main];
  const all = rows.filter((row) => row.values[board.main] != null);
  const some = all.slice(0, MOST.bars);
  const title = `${column.title} with 95 % intervals` + (all.length > some.length ? `, the first ${some.length} of ${all.length} rows` : "");
  const label = (row) => row.name + (board.column("backbone") >= 0 ? ` · ${row.backbone}` : "");
  const draw = (width) => {
    const wide = width > 460;
    const left = wide ? Math.min(240, Math.max(...some.map((row) => label(row).length)) * 6.9 + 12) : 0;
    const pitch = wide ? 24 : 36;
    const box = { left, right: width - 10, top: 18, bottom: 22 + pitch * some.length };
    const ends = some.flatMap((row) => row.interval || [row.values[board.main]]);
    const sx = scale([...ends, ...some.map((row) => row.values[board.main])], left, box.right, { zero: true });
    const marks = some.map((row, n) => {
      const y = 22 + pitch * n + (wide ? 3 : 17);
      const [zero, end] = [sx.at(0), sx.at(row.values[board.main])];
      const [low, high] = row.interval || [];
      return mark(row, tooltip(board, row), [
        s("rect", { class: "halo", x: 0, y: 22 + pitch * n, width, height: pitch }),
        s("text", wide ? { x: left - 8, y: y + 13, "text-anchor": "end" } : { x: 0, y: y - 4 },
          clipped(label(row), wide ? left - 8 : width)),
        s("rect", { class: row.kind === "reported" ? "shape" : "bar", x: Math.min(zero, end), y, width: Math.abs(end - zero), height: 16 }),
        row.interval ? s("path", { class: "whisker", d: `M${sx.at(low)} ${y + 4}v8m0-4H${sx.at(high)}m0-4v8` }) : null,
      ], open);
    });
    const height = box.bottom + 38;
    return [s("svg", { height, viewBox: `0 0 ${width} ${height}` },
      axes(box, sx, null, `${column.title}, ${column.better === 1 ? "higher" : "lower"} is better`, ""), roving(marks, title))];
  };
  const cells = all.map((row) => [label(row), short(row.values[board.main], 4), ...(row.interval || [null, null]).map((v) => short(v, 4))]);
  return plot("bars", title, draw, ["decoder", column.title, "from", "to"], cells);
}

const clipped = (text, width) =>
  (text.length * 6.9 > width ? `${text.slice(0, Math.max(3, Math.floor(width / 6.9) - 1))}…` : text);

function curves(board, rows, which, title, open) {
  const all = rows.filter((row) => row.curves && row.curves[which]);
  if (!all.length) return null;
  if (all.every((row) => row.curves[which][0].length === 1)) {
    return { figure: h("p", { class: "legend once" }, ONCE[which]), draw: () => {} };
  }
  const some = all.slice(0, MOST.curves);
  const label = (row) => row.name + (board.column("backbone") >= 0 ? ` · ${row.backbone}` : "");
  const full = title + (all.length > some.length ? `, the first ${some.length} of ${all.length} rows` : "");
  const draw = (width) => {
    const narrow = width < 460; // then lines have numbers, and the names are below
    const at = (row) => (narrow ? String(some.indexOf(row) + 1) : label(row));
    const margin = narrow ? 34 : Math.min(width * 0.36, Math.max(...some.map((row) => label(row).length)) * 6.9 + 22);
    const box = { left: 46, right: width - margin, top: 22, bottom: 260 };
    const series = some.map((row) => row.curves[which]);
    const sx = scale(series.flatMap((c) => c[0]), box.left, box.right);
    sx.ticks = sx.ticks.filter(([v]) => Number.isInteger(v));
    const sy = scale(series.flatMap((c) => c.slice(1).flat()), box.bottom, box.top);
    const path = (epochs, values) => epochs.map((e, n) => `${n ? "L" : "M"}${sx.at(e).toFixed(1)} ${sy.at(values[n]).toFixed(1)}`).join("");
    const lines = some.map((row, n) => {
      const [epochs, mean, low, high] = row.curves[which];
      const back = low ? path([...epochs].reverse(), [...high].reverse()).replace("M", "L") : "";
      return s("g", { class: look(row).colour },
        low && epochs.length > 1 ? s("path", { class: "band", d: `${path(epochs, low)}${back}z` }) : null,
        s("path", { class: "curve", d: path(epochs, mean), "stroke-dasharray": DASHES[n] }));
    });
    const ends = some.map((row) => ({ row, y: sy.at(row.curves[which][1].at(-1)) })).sort((a, b) => a.y - b.y);
    const places = ends.map(({ y }) => y);
    for (let n = 1; n < places.length; n += 1) places[n] = Math.max(places[n], places[n - 1] + 14);
    const over = places.at(-1) - (box.bottom + 4);
    if (over > 0) for (let n = places.length - 1, max = box.bottom + 4; n >= 0; n -= 1, max -= 14) places[n] = Math.min(places[n], max);
    const marks = ends.map(({ row, y }, n) => {
      const [epochs, mean] = row.curves[which];
      const x = sx.at(epochs.at(-1));
      const text = `${label(row)}\n${title}\n${short(mean[0], 4)} after epoch ${epochs[0]}`
        + (epochs.length > 1 ? `\n${short(mean.at(-1), 4)} after epoch ${epochs.at(-1)}` : "");
      return mark(row, text, [
        s("path", { class: "thin", d: `M${x + 7} ${y}L${box.right + 10} ${places[n]}` }),
        s("circle", { class: "halo", cx: x, cy: y, r: 12 }),
        s("path", { class: "shape", d: look(row).shape, transform: `translate(${x} ${y}) scale(.8)` }),
        s("text", { x: box.right + 13, y: places[n] + 4 }, clipped(at(row), margin - 13)),
      ], open);
    });
    return [s("svg", { height: 300, viewBox: `0 0 ${width} 300` }, axes(box, sx, sy, "epoch", ""), lines, roving(marks, full)),
      narrow ? h("ul", { class: "keys", "aria-hidden": "true" }, some.map((row, n) => h("li", {},
        `${n + 1} `, s("svg", { viewBox: "-8 -8 16 16", class: `mark ${look(row).colour}` },
          s("path", { class: "shape", d: look(row).shape })), label(row)))) : null].filter((part) => part);
  };
  const epochs = [...new Set(all.flatMap((row) => row.curves[which][0]))].sort((a, b) => a - b);
  const cells = epochs.map((epoch) => [String(epoch), ...all.map((row) => {
    const [at, mean] = row.curves[which];
    const n = at.indexOf(epoch);
    return n < 0 ? "–" : short(mean[n], 4);
  })]);
  return plot(`curve-${which}`, full, draw, ["epoch", ...all.map(label)], cells);
}

function drawPlots(board, rows, state, actions) {
  const place = board.section.querySelector(".plots");
  const costs = Object.keys(COSTS).filter((cost) => board.column(cost) >= 0);
  const plots = [];
  drawn = decoders.filter((name) => board.rows.some((row) => row.decoder === name));
  if (board.main >= 0) {
    if (costs.includes("latency")) plots.push(scatter(board, rows, "latency", actions.open));
    const others = costs.filter((cost) => cost !== "latency");
    if (others.length) {
      const cost = others.includes(state.x) ? state.x : others[0];
      const select = h("select", { "aria-label": "Cost on the horizontal axis", change: () => actions.set({ x: select.value }, ".plots select") },
        others.map((c) => h("option", { value: c, selected: c === cost }, COSTS[c])));
      plots.push(scatter(board, rows, cost, actions.open, others.length > 1 ? select : null));
    }
    plots.push(bars(board, rows, actions.open));
    const name = board.columns[board.main].title;
    plots.push(curves(board, rows, "val", `Learning curve: ${name} on the validation split`, actions.open),
      curves(board, rows, "loss", "Learning curve: training loss", actions.open));
  }
  const present = plots.filter((p) => p !== null);
  place.replaceChildren(...present.map((p) => p.figure));
  present.forEach((p) => p.draw());
}
