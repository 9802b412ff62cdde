// The page without this script shows everything but stacks of slices; with it: theme, sorting, filters, viewer.
// Names and numbers reach the page as text and attributes only, never as HTML.
"use strict";

const SVG = "http://www.w3.org/2000/svg";
const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = name.startsWith("svg:")
    ? document.createElementNS(SVG, name.slice(4))
    : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

// ---- Theme: automatic, light, dark. Remembered where the browser allows it for this file.
function startTheme() {
  const [button, key] = [byId("theme"), "utseg-report-theme"];
  const themes = ["automatic", "light", "dark"];
  let theme = "automatic";
  function show(wanted) {
    theme = themes.includes(wanted) ? wanted : "automatic";
    if (theme === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    button.textContent = `Theme: ${theme}`;
  }
  button.addEventListener("click", () => {
    show(themes[(themes.indexOf(theme) + 1) % themes.length]);
    try { localStorage.setItem(key, theme); } catch { /* not for this file */ }
  });
  button.hidden = false;
  show(theme);
  try { show(localStorage.getItem(key)); } catch { /* not for this file */ }
}

// ---- The table of cases: sorting and filters.
function startTable() {
  const table = byId("case-table");
  if (!table) return;
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const rows = [...body.rows];
  const texts = rows.map((row) => [...row.cells].map((cell) => cell.textContent));

  const collator = new Intl.Collator("en", { numeric: true });
  const compare = (a, b) => {
    const [x, y] = [Number.parseFloat(a), Number.parseFloat(b)];
    const numbers = [a, b].every((text) => /^-?[\d.]+$/.test(text));
    return numbers ? x - y : collator.compare(a, b);
  };
  const isEmpty = (text) => text === "" || text === "–";
  function sort(column, direction) {
    const order = rows.map((_, index) => index);
    order.sort((i, j) => {
      const [a, b] = [texts[i][column], texts[j][column]];
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b) || i - j; // at the end, whichever way
      return direction * compare(a, b) || i - j;
    });
    body.append(...order.map((index) => rows[index]));
    heads.forEach((head, index) =>
      head.setAttribute("aria-sort", index !== column ? "none" : direction > 0 ? "ascending" : "descending"));
  }
  heads.forEach((head, column) =>
    head.querySelector("button").addEventListener("click", () =>
      sort(column, head.getAttribute("aria-sort") === "ascending" ? -1 : 1)));

  const find = byId("find");
  const selects = [...document.querySelectorAll("#filters select")];
  function filter() {
    const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, index) => {
      const whole = texts[index].join("\n").toLowerCase();
      const fits = words.every((word) => whole.includes(word))
        && selects.every((select) => select.selectedIndex === 0 || texts[index][select.dataset.index] === select.value);
      row.hidden = !fits;
      shown += fits;
    });
    byId("count").textContent = `${shown} of ${rows.length} ${table.dataset.what ?? "cases"}`;
  }
  find.addEventListener("input", filter);
  selects.forEach((select) => select.addEventListener("change", filter));
  byId("filters").hidden = false;
  filter();

  document.addEventListener("click", (event) => {
    const subject = event.target.closest("circle[data-subject]");
    if (!subject) return;
    find.value = subject.dataset.subject;
    filter();
    byId("cases").scrollIntoView();
  });
}

// ---- The viewer: one case's stack of slices, image, reference and each model.
function startViewer() {
  const dialog = byId("viewer");
  if (!dialog) return;
  const { labels, models } = JSON.parse(byId("viewer-data").textContent);
  const rows = [...byId("case-table").tBodies[0].rows];
  const byCase = new Map(rows.map((row) => [row.dataset.case, row]));
  const slider = byId("slice");
  const shown = labels.map(() => true);
  let stack = null;
  let row = null;
  let panels = [];

  labels.forEach((label, index) => {
    const box = make("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", () => { shown[index] = box.checked; draw(); });
    const swatch = make("svg:svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true" },
      make("svg:rect", { x: 1, y: 1, width: 10, height: 10, rx: 2, fill: label.colour }));
    byId("label-boxes").append(make("label", {}, box, " ", swatch, label.name));
  });

  const hasStack = (candidate) => byId(`stack-${candidate.dataset.number}`) !== null;
  const dice = (values) => labels.map((label, i) => `${label.name} ${values[i] == null ? "–" : values[i].toFixed(3)}`).join("  ");

  function open(target) {
    if (!target || !hasStack(target)) return;
    row = target;
    stack = JSON.parse(byId(`stack-${row.dataset.number}`).textContent);
    byId("viewer-title").textContent = stack.case;
    slider.max = stack.slices.length - 1;
    slider.value = largest();
    const scored = models.map((name, index) => ({ name, index })).filter(({ index }) => stack.models[index]);
    panels = [panel("image", null, null, ""), panel("reference", stack.reference, null, "")];
    for (const { name, index } of scored)
      panels.push(panel(name, stack.models[index].paths, stack.models[index].dice, `volume: ${dice(stack.dice[index])}`));
    byId("panels").className = `panels n${Math.min(panels.length, 6)}`;
    byId("panels").replaceChildren(...panels.map((one) => one.element));
    byId("previous-case").disabled = !neighbour(-1);
    byId("next-case").disabled = !neighbour(1);
    draw();
    if (!dialog.open) dialog.showModal();
    slider.focus();
  }

  function largest() {
    const length = (paths) => paths.reduce((sum, path) => sum + path.length, 0);
    const sizes = stack.reference.map(length);
    return Math.max(sizes.indexOf(Math.max(...sizes)), 0);
  }

  function panel(name, paths, scores, below) {
    const { width, height, bar } = stack;
    const { cell, sheet, data } = stack.image;
    const picture = make("svg:svg", { width, height, viewBox: `0 0 ${cell[0]} ${cell[1]}`, preserveAspectRatio: "none" },
      make("svg:image", { width: sheet[0], height: sheet[1], href: `data:image/webp;base64,${data}` }));
    const scale = `scale(${stack.mm[0] / 10} ${stack.mm[1] / 10})`;
    const under = make("svg:g", { class: "outlines under", transform: scale });
    const over = make("svg:g", { class: "outlines", transform: scale });
    const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, role: "img" }, picture, under, over);
    if (!paths) {
      const inset = width / 28;
      svg.append(
        make("svg:path", { class: "bar", "stroke-width": inset / 3, d: `M${inset} ${height - inset}h${bar}` }),
        make("svg:text", { class: "bar-text", "font-size": 1.4 * inset, x: inset + bar / 2, y: height - 1.6 * inset }, `${bar} mm`));
    }
    const slice = make("p", { class: "below" });
    const element = make("div", { class: "panel" }, make("p", { class: "above", title: name }, name), svg, slice, make("p", {}, below));
    return { element, svg, picture, under, over, slice, paths, scores, name };
  }

  function outlines(group, paths) {
    group.replaceChildren(...stack.order.flatMap((index) =>
      paths[index] && shown[index] ? [make("svg:path", { d: paths[index], stroke: labels[index].colour })] : []));
  }

  function draw() {
    if (!stack) return;
    const z = Number(slider.value);
    const { cell, columns } = stack.image;
    for (const panel of panels) {
      panel.picture.setAttribute("viewBox", `${(z % columns) * cell[0]} ${Math.floor(z / columns) * cell[1]} ${cell[0]} ${cell[1]}`);
      outlines(panel.over, panel.paths ? panel.paths[z] : []);
      outlines(panel.under, panel.scores && byId("both").checked ? stack.reference[z] : []);
      panel.slice.textContent = panel.scores ? `slice: ${dice(panel.scores[z])}` : "";
      panel.svg.setAttribute("aria-label", `${stack.case}: ${panel.name}, slice ${stack.slices[z]} of ${stack.of}`);
    }
    byId("slice-text").textContent = `${stack.slices[z]} of ${stack.of}, ${stack.thickness} mm apart`;
  }

  function neighbour(step) {
    let next = row;
    do next = step > 0 ? next.nextElementSibling : next.previousElementSibling;
    while (next && (next.hidden || !hasStack(next)));
    return next;
  }

  function move(step) {
    slider.value = Number(slider.value) + step;
    draw();
  }

  const keys = {
    ArrowUp: () => move(1), ArrowRight: () => move(1), ArrowDown: () => move(-1), ArrowLeft: () => move(-1),
    Home: () => move(-stack.slices.length), End: () => move(stack.slices.length),
    PageDown: () => open(neighbour(1)), PageUp: () => open(neighbour(-1)),
  };
  dialog.addEventListener("keydown", (event) => {
    if (!keys[event.key] || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    keys[event.key]();
  });
  dialog.addEventListener("close", () => row.querySelector("button").focus());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  slider.addEventListener("input", draw);
  byId("both").addEventListener("change", draw);
  byId("close").addEventListener("click", () => dialog.close());
  byId("previous-case").addEventListener("click", () => open(neighbour(-1)));
  byId("next-case").addEventListener("click", () => open(neighbour(1)));
  document.addEventListener("click", (event) => {
    const target = event.target.closest("tr[data-case], circle[data-case]");
    if (target) open(target.matches("tr") ? target : byCase.get(target.dataset.case));
  });
}

// ---- A choice of one of several tables, by score and label.
function startChoices() {
  const selects = [byId("choose-metric"), byId("choose-label")];
  if (selects.includes(null)) return;
  const tables = [...document.querySelectorAll(".choice")];
  function choose() {
    const [metric, label] = selects.map((select) => select.value);
    for (const table of tables) table.hidden = table.dataset.metric !== metric || table.dataset.label !== label;
  }
  selects.forEach((select) => select.addEventListener("change", choose));
  byId("choices").hidden = false;
  choose();
}

// ---- Print: what is folded is opened, and folded again afterwards.
function startPrint() {
  let opened = [];
  const open = (isOpen) => { for (const details of opened) details.open = isOpen; };
  window.addEventListener("beforeprint", () => {
    opened = document.querySelectorAll("details:not([open])");
    open(true);
  });
  window.addEventListener("afterprint", () => open(false));
}

startTheme();
startTable();
startViewer();
startChoices();
startPrint();
