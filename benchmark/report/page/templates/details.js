// Details below a row: its commands, and data that the table omits.
const PHASES = { data: "read data", train: "train", score: "score", time: "time in turns", total: "build, train, score" };

function commandOf(board, [start, end, middle]) {
  const first = [...board.command]; // code points, as Python counts them
  return first.slice(0, start).join("") + middle + first.slice(first.length - end).join("");
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "hide", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

function commandBox(text, what) {
  const button = h("button", {
    type: "button", "aria-label": `Copy ${what}`,
    click: async () => {
      const done = await copy(text);
      button.textContent = done ? "Copied" : "Not copied";
      say(done ? `Copied ${what}` : "The browser did not allow copying: select the text");
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
      button.focus();
    },
  }, "Copy");
  return h("div", { class: "command" }, h("code", { tabindex: "-1" }, words(text)), button);
}

// break lines between the words of a command, not after the dashes of an option
const words = (text) => text.split(" ").flatMap((word, i) => [i ? " " : "", h("span", {}, word)]);

const part = (title, content, wide) =>
  h("section", { class: wide ? "wide" : null }, h("h4", {}, title), content);

function detailOf(board, row, link) {
  const parts = [];
  if (row.commands) {
    const [first, ...others] = row.commands.map((c) => commandOf(board, c));
    if (first) parts.push(part("Command", commandBox(first, `the command of ${row.name}`), true));
    if (others.length) {
      parts.push(h("details", { class: "wide" },
        h("summary", {}, others.length > 1 ? `Commands of the other ${others.length} seeds` : "Command of the other seed"),
        others.map((text, i) => commandBox(text, `the command of seed ${row.seeds[i + 1][0]}`))));
    }
    if (board.metrics.length && row.kind !== "failed") {
      const titles = ["seed", ...board.metrics, "ms", "best epoch", "run"];
      const seeds = row.seeds.map(([seed, key, epoch, ms, ...values]) =>
        [String(seed), ...values.map((v) => short(v, 4)), short(ms), String(epoch), key]);
      parts.push(part("Seeds", hinted(h("div", { class: "inner", tabindex: "0", role: "region", "aria-label": `Seeds of ${row.name}` }, table(titles, seeds))), true));
    }
    if (board.fields.length) {
      const pairs = board.fields.map((name, i) => [name, row.config[i]]);
      parts.push(part("Settings that differ on this board", table([], pairs, { class: "facts pairs" })));
    }
    const seconds = Object.entries(row.seconds).map(([name, value]) => [PHASES[name] || name, `${short(value)} s`]);
    const params = Object.entries(row.params).map(([name, n]) => [`parameters, ${name}`, n.toLocaleString("en")]);
    if (seconds.length || params.length) {
      parts.push(part("Times and sizes", table([], [...seconds, ...params], { class: "facts pairs" })));
    }
    if (row.speed) parts.push(part("How it was timed", table([], row.speed, { class: "facts pairs" })));
    for (const number of row.environments) {
      const facts = byId(`environment-${number}`).querySelector("table").cloneNode(true);
      parts.push(part(`Environment ${number + 1}`, facts));
    }
  }
  if (row.wiring !== undefined) {
    parts.push(part("Wiring", byId(`wiring-${row.wiring}`).querySelector("svg").cloneNode(true)));
  }
  for (const strip of board.section.querySelectorAll(".predictions > .strip")) {
    const mine = strip.querySelector(`[data-row="${row.index}"]`);
    if (mine) {
      const pictures = [...strip.children].slice(0, 2).concat(mine).map((f) => f.cloneNode(true));
      pictures[2].hidden = false; // it may be hidden below the table
      parts.push(part(strip.getAttribute("aria-label"), h("div", { class: "strip" }, pictures)));
    }
  }
  if (!parts.length) parts.push(h("p", {}, "Nothing more is known of this row."));
  parts.push(h("p", { class: "wide" }, h("a", { class: "permalink", href: link }, "Link to this row")));
  const panel = h("div", { class: "panel" }, parts);
  const room = board.section.querySelector(".scroll").clientWidth;
  panel.style.setProperty("--room", `${room}px`);
  return h("tr", { class: "detail" }, h("td", { colspan: board.columns.length }, panel));
}

function setOpen(board, row, link) {
  const open = link !== null;
  if (open === Boolean(row.detail)) return;
  row.button.setAttribute("aria-expanded", String(open));
  row.tr.classList.toggle("open", open);
  if (open) {
    row.detail = detailOf(board, row, link);
    row.tr.after(row.detail);
  } else {
    row.detail.remove();
    row.detail = null;
  }
}
