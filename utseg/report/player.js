
// ---- The player: all slices of a cine, or one, frame after frame on a canvas. Follows report.js, whose functions it uses.
function startPlayer() {
  const player = byId("player");
  if (!player) return;
  const cine = JSON.parse(byId("cine-data").textContent);
  const canvas = byId("canvas");
  const context = canvas.getContext("2d");
  const slider = byId("frame");
  const choice = byId("shown-slice");
  const count = cine.slices.length;
  const shown = cine.labels.map(() => true);
  const frameMs = cine.frameMs ?? 1000 / cine.frames;
  const [CELL, GAP, WIDEST] = [150, 3, 520]; // CSS pixels: least width of a slice among others, between slices, of one alone
  const sheet = cine.image ? new Image() : null;
  const paths = new Map();
  let grid = { columns: 1, width: 1, height: 1, cells: [] };
  let playing = 0;

  // ---- What is drawn
  const frame = () => Number(slider.value);
  const outline = (place, label) => {
    const key = place * cine.labels.length + label;
    if (!paths.has(key)) paths.set(key, new Path2D(cine.paths[place][label]));
    return paths.get(key);
  };

  function layOut() {
    const room = player.clientWidth;
    const chosen = choice.value === "all" ? cine.slices.map((_, index) => index) : [Number(choice.value)];
    const columns = chosen.length === 1 ? 1 : Math.min(chosen.length, Math.max(2, Math.floor((room + GAP) / (CELL + GAP))), 6);
    const width = Math.min((room + GAP) / columns - GAP, WIDEST);
    const height = width * cine.height / cine.width;
    grid = { columns, width, height, cells: chosen };
    const dense = window.devicePixelRatio || 1;
    const size = [columns * (width + GAP) - GAP, Math.ceil(chosen.length / columns) * (height + GAP) - GAP];
    [canvas.style.width, canvas.style.height] = size.map((side) => `${side}px`);
    [canvas.width, canvas.height] = size.map((side) => Math.round(side * dense));
    draw();
  }

  function corner(index) {
    return [index % grid.columns * (grid.width + GAP), Math.floor(index / grid.columns) * (grid.height + GAP)];
  }

  function draw() {
    const dense = window.devicePixelRatio || 1;
    context.setTransform(dense, 0, 0, dense, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    grid.cells.forEach((slice, index) => drawCell(slice, corner(index), dense, index === 0));
    tell();
  }

  function drawCell(slice, [x, y], dense, withBar) {
    const place = frame() * count + slice;
    const { width, height } = grid;
    context.setTransform(dense, 0, 0, dense, x * dense, y * dense);
    context.save();
    context.beginPath();
    context.rect(0, 0, width, height);
    context.clip();
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    if (sheet?.complete && sheet.naturalWidth) {
      const [w, h] = cine.image.cell;
      const { columns } = cine.image;
      context.imageSmoothingQuality = "high";
      context.drawImage(sheet, place % columns * w, Math.floor(place / columns) * h, w, h, 0, 0, width, height);
    }
    const scale = width / cine.width;
    context.save();
    context.scale(scale * cine.mm[0] / 10, scale * cine.mm[1] / 10);
    context.lineJoin = "round";
    context.lineWidth = (grid.cells.length === 1 ? 2 : 1.5) * 10 / (scale * cine.mm[0]);
    for (const label of cine.order) {
      if (!shown[label] || !cine.paths[place][label]) continue;
      context.strokeStyle = cine.labels[label].colour;
      context.stroke(outline(place, label));
    }
    context.restore();
    context.font = "11px sans-serif";
    write(`slice ${cine.slices[slice]}`, 5, 13);
    if (withBar) {
      context.strokeStyle = "#fff";
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(6, height - 7);
      context.lineTo(6 + cine.bar * scale, height - 7);
      context.stroke();
      write(`${cine.bar} mm`, 6, height - 12);
    }
    context.restore();
  }

  function write(text, x, y) { // legible on bright tissue, too
    context.lineWidth = 3;
    context.strokeStyle = "#000";
    context.strokeText(text, x, y);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  }

  // ---- What is said: the frame in words, in the curve, and for those who do not see the canvas
  function tell() {
    const at = frame();
    const words = [`frame ${at} of 0 … ${cine.frames - 1}`];
    if (cine.frameMs !== null) words.push(`${Math.round(at * cine.frameMs)} ms`);
    for (const [name, there] of Object.entries(cine.phases)) if (there === at) words.push(name);
    for (const { name, ml } of cine.volumes) if (ml[at] != null) words.push(`${name} ${ml[at].toFixed(1)} ml`);
    byId("frame-text").textContent = words.join(" · ");
    const which = choice.value === "all" ? "all slices" : `slice ${cine.slices[choice.value]}`;
    canvas.setAttribute("aria-label", `${cine.cine}: ${which}, frame ${at}`);
    const cursor = document.querySelector(".chart .cursor");
    const point = document.querySelector(`.chart circle[data-frame="${at}"]`);
    if (!cursor) return;
    cursor.style.visibility = point ? "visible" : "hidden";
    const from = Number.parseFloat(cursor.getAttribute("d").slice(1));
    if (point) cursor.setAttribute("transform", `translate(${point.getAttribute("cx") - from} 0)`);
  }

  // ---- Time
  function go(to) {
    slider.value = (to + cine.frames) % cine.frames;
    draw();
  }

  function play(start) {
    cancelAnimationFrame(playing);
    playing = 0;
    byId("play").textContent = start ? "❚❚ Pause" : "▶ Play";
    if (!start) return;
    let last = performance.now();
    const step = (now) => {
      const each = Math.max(frameMs / Number(byId("speed").value), 1);
      const frames = Math.floor((now - last) / each);
      if (frames > 0) {
        last += frames * each;
        go(frame() + frames % cine.frames);
      }
      playing = requestAnimationFrame(step);
    };
    playing = requestAnimationFrame(step);
  }

  function show(value) {
    choice.value = value;
    layOut();
  }

  function move(step) {
    const next = choice.value === "all" ? (step > 0 ? 0 : count - 1) : Number(choice.value) + step;
    if (next >= 0 && next < count) show(String(next));
  }

  function still(to) {
    play(false);
    go(to);
  }

  const jump = (name) => { if (name in cine.phases) still(cine.phases[name]); };
  const keys = {
    " ": () => play(!playing), ArrowRight: () => still(frame() + 1), ArrowLeft: () => still(frame() - 1),
    ArrowUp: () => move(1), ArrowDown: () => move(-1), Home: () => still(0), End: () => still(cine.frames - 1),
    a: () => show("all"), e: () => jump("ED"), s: () => jump("ES"),
  };
  player.addEventListener("keydown", (event) => {
    const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    const own = event.target.matches("select") || (event.key === " " && event.target.matches("button, input"));
    if (!action || own || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    action();
  });

  cine.labels.forEach((label, index) => {
    const box = make("input", { type: "checkbox", checked: "" });
    box.addEventListener("change", () => { shown[index] = box.checked; draw(); });
    const swatch = make("svg:svg", { class: "swatch", viewBox: "0 0 12 12", "aria-hidden": "true" },
      make("svg:rect", { x: 1, y: 1, width: 10, height: 10, rx: 2, fill: label.colour }));
    byId("outline-boxes").append(make("label", {}, box, " ", swatch, label.name));
  });
  byId("play").addEventListener("click", () => play(!playing));
  slider.addEventListener("input", () => still(frame()));
  choice.addEventListener("change", layOut);
  player.querySelectorAll("[data-go]").forEach((button) =>
    button.addEventListener("click", () => still(Number(button.dataset.go))));
  document.querySelectorAll(".chart circle[data-frame]").forEach((point) =>
    point.addEventListener("click", () => still(Number(point.dataset.frame))));
  canvas.addEventListener("click", (event) => {
    if (choice.value !== "all") return show("all");
    const index = grid.cells.findIndex((_, place) => {
      const [x, y] = corner(place);
      return event.offsetX >= x && event.offsetX < x + grid.width && event.offsetY >= y && event.offsetY < y + grid.height;
    });
    if (index >= 0) show(String(index));
  });

  player.hidden = false;
  slider.value = cine.phases.ED ?? 0;
  if (sheet) {
    sheet.addEventListener("load", draw);
    sheet.src = byId("sheet").getAttribute("href");
  }
  new ResizeObserver(layOut).observe(player);
}

// ---- A point of a chart leads to the page of its cine.
function startLinks() {
  document.addEventListener("click", (event) => {
    const point = event.target.closest("circle[data-case]");
    if (!point) return;
    const row = [...document.querySelectorAll("#case-table tr[data-case]")].find((one) => one.dataset.case === point.dataset.case);
    row?.querySelector("a")?.click();
  });
}

startPlayer();
startLinks();
