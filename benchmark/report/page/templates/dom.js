// All elements are created here, with text as text nodes: no name in a result becomes HTML.
const byId = (id) => document.getElementById(id);

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) {
      node.setAttribute(name, value === true ? "" : value);
    }
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const h = (tag, attributes, ...children) =>
  filled(document.createElement(tag), attributes, children);

const s = (tag, attributes, ...children) =>
  filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const say = (text) => { byId("status").textContent = text; };

// three significant digits, at least two where that takes more than four decimals; no exponent
function short(value, digits) {
  if (value === null || value === undefined) return "–";
  if (typeof value === "string") return value;
  if (digits === undefined) {
    const size = value ? Math.floor(Math.log10(Math.abs(value))) : 0;
    digits = Math.max(Math.min(Math.max(2 - size, 0), 4), 1 - size);
  }
  return value.toFixed(digits);
}

function table(titles, rows, attributes) {
  return h("table", { class: "facts", ...attributes },
    titles.length ? h("thead", {}, h("tr", {}, titles.map((t) => h("th", { scope: "col" }, t)))) : null,
    h("tbody", {}, rows.map((row) =>
      h("tr", {}, row.map((cell, i) => i ? h("td", {}, cell) : h("th", { scope: "row" }, cell))))));
}

// a shadow at the right edge of a scrollable box while it can scroll further
function hinted(scroll) {
  const frame = h("div", { class: "frame" });
  scroll.replaceWith(frame);
  frame.append(scroll);
  const look = () => {
    frame.classList.toggle("more", scroll.scrollLeft + scroll.clientWidth < scroll.scrollWidth - 2);
  };
  scroll.addEventListener("scroll", look, { passive: true });
  const watch = new ResizeObserver(look);
  watch.observe(scroll);
  watch.observe(scroll.firstElementChild);
  return frame;
}

// the tooltip shows the text of a mark's aria-label
function showTip(text, mark) {
  const tip = byId("tip");
  const box = mark.getBoundingClientRect();
  tip.textContent = text;
  tip.hidden = false;
  const size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(box.x + box.width / 2 - size.width / 2, 4), innerWidth - size.width - 4);
  const above = box.y - size.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : box.bottom + 8}px`;
}

const hideTip = () => { byId("tip").hidden = true; };
