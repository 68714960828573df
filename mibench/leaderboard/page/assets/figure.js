// Scales, axes and labels of the figures: plain SVG, drawn from numbers alone, so that the same data give the same picture.

const SVG = "http://www.w3.org/2000/svg";
const CHARACTER = 6.7;  // mean width of a character at 12 px; labels are placed by it, nothing is measured
const BOLD_CHARACTER = 7.6;
const LINE_COLOURS = 6;

function linearScale([low, high], [from, to]) {
  const scale = value => from + (value - low) / (high - low || 1) * (to - from);
  scale.ticks = niceTicks(low, high, Math.abs(to - from) / 60);
  return scale;
}

function logScale([low, high], [from, to]) {
  const scale = value => from + (Math.log10(value) - Math.log10(low)) / (Math.log10(high) - Math.log10(low) || 1) * (to - from);
  const all = logSteps(low, high);
  scale.ticks = all.length > 8 ? all.filter(step => Number.isInteger(Math.log10(step))) : all;
  return scale;
}

/** 1, 2 and 5 times the powers of ten from low to high. */
function logSteps(low, high) {
  const steps = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) for (const factor of [1, 2, 5]) steps.push(Number((factor * 10 ** power).toPrecision(6)));
  return steps.filter(step => step >= low * (1 - 1e-9) && step <= high * (1 + 1e-9));
}

/** The nearest such steps around values. */
function logDomain(values) {
  const low = Math.min(...values), high = Math.max(...values), steps = logSteps(low / 10, high * 10);
  return [Math.max(...steps.filter(step => step < low)), Math.min(...steps.filter(step => step > high))];
}

/** Round values between low and high, about `count` of them. */
function niceTicks(low, high, count) {
  const rough = (high - low) / Math.max(2, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map(factor => factor * power).find(size => size >= rough);
  const ticks = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place++) ticks.push(Number((place * step).toPrecision(12)));
  return ticks;
}

/** Writes every tick of an axis with the same number of decimals. */
function tickText(ticks) {
  const decimals = Math.max(0, ...ticks.map(tick => (String(tick).split(".")[1] || "").length));
  return tick => (tick < 0 ? "−" : "") + Math.abs(tick).toFixed(decimals);
}

/** 1000000 -> "1 M", for axes. */
function formatPower(value) {
  if (value >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  return value >= 1e3 ? `${Number((value / 1e3).toPrecision(3))} k` : String(value);
}

function element(name, attributes, ...children) {
  const text = Object.entries(attributes).filter(([, value]) => value !== undefined && value !== null).map(([key, value]) => ` ${key}="${escapeHtml(typeof value === "number" ? Number(value.toFixed(2)) : value)}"`).join("");
  return `<${name}${text}>${children.join("")}</${name}>`;
}

/** Grid, axes and their names. `frame` is {left, right, top, bottom, width, height}. */
function axesSvg(frame, x, y, {xName, yName, xText = tickText(x.ticks), yText = tickText(y.ticks)}) {
  const parts = [];
  for (const tick of y.ticks) {
    parts.push(element("line", {x1: frame.left, x2: frame.width - frame.right, y1: y(tick), y2: y(tick), stroke: Math.abs(tick) < 1e-12 ? "var(--soft)" : "var(--hair)"}));
    parts.push(element("text", {x: frame.left - 8, y: y(tick) + 4, "text-anchor": "end", fill: "var(--soft)", "font-size": 12}, escapeHtml(yText(tick))));
  }
  for (const tick of x.ticks) {
    parts.push(element("line", {x1: x(tick), x2: x(tick), y1: frame.height - frame.bottom, y2: frame.height - frame.bottom + 5, stroke: "var(--soft)"}));
    parts.push(element("text", {x: x(tick), y: frame.height - frame.bottom + 19, "text-anchor": "middle", fill: "var(--soft)", "font-size": 12}, escapeHtml(xText(tick))));
  }
  parts.push(element("text", {x: frame.left - 30, y: 14, fill: "var(--ink)", "font-size": 12}, escapeHtml(`↑ ${yName}`)));
  parts.push(element("text", {x: frame.width - frame.right, y: frame.height - 6, "text-anchor": "end", fill: "var(--ink)", "font-size": 12}, escapeHtml(`${xName} →`)));
  return parts.join("");
}

/** Places where a label may stand around its point: offset, and which end of the text is fixed. */
const PLACES = [[0, 20, "middle"], [0, -13, "middle"], [10, 4, "start"], [-10, 4, "end"], [9, 19, "start"], [-9, 19, "end"], [9, -12, "start"], [-9, -12, "end"], [0, 36, "middle"], [0, -29, "middle"]];

function boxOf({text, bold = true}, x, y, anchor) {
  const width = text.length * (bold ? BOLD_CHARACTER : CHARACTER);
  const left = anchor === "middle" ? x - width / 2 : anchor === "end" ? x - width : x;
  return {left: left - 2, right: left + width + 2, top: y - 11, bottom: y + 4};
}

function overlap(a, b) {
  return Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left)) * Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
}

/**
 * Place labels one after the other where they cover least. Each is {text, points: [[x, y]...], must, ...}; any of the
 * points may carry it; `obstacles` are dots, `lines` points of lines. A label that would touch another one is left out unless `must`. Returns the placed ones.
 */
function placeLabels(labels, obstacles, lines, frame) {
  const taken = [];
  const around = size => ([x, y]) => ({left: x - size, right: x + size, top: y - size, bottom: y + size});
  const dots = [...obstacles.map(around(5)), ...lines.map(around(2))];
  const placed = [];
  for (const label of labels) {
    let best = null;
    label.points.forEach(([px, py], rank) => PLACES.forEach(([dx, dy, anchor], order) => {
      const x = px + dx, y = py + dy, box = boxOf(label, x, y, anchor);
      if (box.left < 2 || box.right > frame.width - 2 || box.top < frame.top - 16 || box.bottom > frame.height - frame.bottom + 2) return;
      const touching = taken.reduce((sum, other) => sum + overlap(box, other), 0);
      const cost = touching * 100 + dots.reduce((sum, dot) => sum + overlap(box, dot), 0) + order * 2 + rank * 4;
      if (!best || cost < best.cost) best = {cost, touching, x, y, anchor, box};
    }));
    if (!best || (best.touching && !label.must)) continue;
    taken.push(best.box);
    placed.push({...label, x: best.x, y: best.y, anchor: best.anchor});
  }
  return placed;
}

function labelSvg({text, x, y, anchor, colour, bold = true}) {
  return element("text", {x, y, "text-anchor": anchor, fill: colour, stroke: "var(--card)", "stroke-width": 4, "stroke-linejoin": "round", "paint-order": "stroke", "font-size": 12, "font-weight": bold ? 600 : 400, "pointer-events": "none"}, escapeHtml(text));
}

/** A point that names its group: a link for the mouse, numbers for the tip; the table below serves the keyboard. */
function pointSvg(group, x, y, radius, attributes) {
  return `<a href="#/group/${escapeHtml(encodeURIComponent(group.id))}" tabindex="-1" aria-hidden="true">${element("circle", {cx: x, cy: y, r: radius, "data-group": group.index, ...attributes})}</a>`;
}

function figureSvg(frame, label, parts) {
  return `<svg viewBox="0 0 ${frame.width} ${frame.height}" role="img" aria-label="${escapeHtml(label)}">${parts.join("")}</svg>`;
}

/** Width for which a figure is drawn: one of three, so that its text stays readable on a telephone. */
function figureWidth(wide) {
  return matchMedia("(max-width: 620px)").matches ? 380 : matchMedia("(max-width: 1000px)").matches ? 720 : wide;
}

/** Points along a line, at which a label would cover it. */
function pointsAlong(corners) {
  const points = [];
  for (let place = 1; place < corners.length; place++) {
    const [[x1, y1], [x2, y2]] = [corners[place - 1], corners[place]];
    const steps = Math.max(1, Math.round(Math.hypot(x2 - x1, y2 - y1) / 8));
    for (let step = 0; step <= steps; step++) points.push([x1 + (x2 - x1) * step / steps, y1 + (y2 - y1) * step / steps]);
  }
  return points;
}

function shortLabel(text) {
  return text.length > 26 ? `${text.slice(0, 24)}…` : text;
}
