"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const PAGE = 100;
const FILTERS = ["dataset", "task", "access", "modality", "attack", "defense", "budget", "fidelity"];
const COLORS = 8;

// Every row as an object, beside its group and metric.
const ROWS = DATA.rows.map((row) => {
  const [group, metric, value, low, high, control, lift, liftLow, liftHigh, n, seeds, verdict, status, reason] = row;
  const owner = DATA.groups[group];
  return { group: owner, metric: DATA.metrics[metric], value, low, high, control, lift, liftLow, liftHigh, n, seeds, verdict, status, reason };
});
const BY_GROUP = new Map(DATA.groups.map((group) => [group, []]));
ROWS.forEach((row) => BY_GROUP.get(row.group).push(row));

// ---- small parts ---------------------------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const svg = ["svg", "g", "line", "circle", "path", "text", "title", "polyline"].includes(name);
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
}

// Three significant digits, at most three decimals above 0.1; what is tiny is written with an exponent.
function number(value, signed = false) {
  if (value === null) return "";
  const size = Math.abs(value);
  const decimals = size >= 0.1 && size < 1 ? 3 : Math.max(0, 2 - Math.floor(Math.log10(size || 1)));
  const text = size && size < 1e-4 ? value.toExponential(1) : trimmed(value.toFixed(decimals));
  return (signed && value > 0 ? "+" : "") + text.replaceAll("-", "\u2212");
}

// How many times as long a training took: two digits, for it is measured no better.
function times(ratio) {
  return number(Number(ratio.toPrecision(2)));
}

function trimmed(digits) {
  return digits.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "").replace(/^-0$/, "0");
}

function interval(low, high) {
  return low === null || high === null ? "" : `[${number(low)}, ${number(high)}]`;
}

function chip(row) {
  if (row.status !== "ok") return element("span", { class: "chip" }, row.status);
  if (!row.verdict) return "";
  const kind = { leak: "leak", "too few targets": "few" }[row.verdict] || "";
  return element("span", { class: `chip ${kind}` }, row.verdict);
}

function seedsOf(row) {
  const all = row.group.cells.length;
  return row.seeds === all ? String(all) : `${row.seeds} of ${all}`;
}

function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
}

function optionsAt(group, axis) {
  return group.options.filter((option) => option.startsWith(`${axis}.`)).map((option) => option.slice(axis.length + 1));
}

function optionsOf(group, axis) {
  const own = optionsAt(group, axis);
  return own.length ? element("span", { class: "sub options" }, own.join(", ")) : null;
}

function distinct(values) {
  return [...new Set(values)].filter((value) => value !== "").sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
}

function select(name, label, choices, chosen, changed) {
  const node = element("select", { name, onchange: changed }, choices.map(([value, text]) => element("option", { value }, text)));
  node.value = chosen;
  return element("label", {}, label, node);
}

// ---- the table -----------------------------------------------------------------------------------------------------

const COLUMNS = [
  { name: "attack", title: "Below: what the attacker sees, and what the attack was written from", key: (row) => row.group.attack, whole: true,
    show: (row) => [element("a", { href: `#${row.group.id}` }, row.group.attack), sub(`${row.group.access}, ${row.group.fidelity}`), optionsOf(row.group, "attack")] },
  { name: "defense", key: (row) => row.group.defense, show: (row) => [row.group.defense, optionsOf(row.group, "defense")] },
  { name: "dataset", title: "Below: the attacked architecture", key: (row) => row.group.dataset,
    show: (row) => [row.group.dataset, sub(row.group.target),
      ...["dataset", "target", "setting", "knowledge"].map((axis) => optionsOf(row.group, axis))] },
  { name: "metric", key: (row) => row.metric.name, whole: true,
    show: (row) => [row.metric.metric, sub(row.metric.name.slice(row.metric.metric.length).trim()), optionsOf(row.group, "evaluation")] },
  { name: "value", key: (row) => row.value, numeric: true,
    show: (row) => [`${number(row.value)} ${row.value === null ? "" : row.metric.unit}`.trim(), sub(interval(row.low, row.high))] },
  { name: "control", title: "The same number without the leak", key: (row) => row.control, numeric: true, show: (row) => [number(row.control)] },
  { name: "lift", title: "How far the value lies on the leaking side of its control", key: (row) => row.lift, numeric: true,
    show: (row) => [number(row.lift, true), sub(interval(row.liftLow, row.liftHigh))] },
  { name: "evidence", key: (row) => row.verdict || row.status, show: (row) => [chip(row)] },
  { name: "victim", title: "Test accuracy of the defended victim (after federated training under the defense where that was measured); below: that of naming one class always", key: (row) => row.group.accuracy, numeric: true,
    show: (row) => [number(row.group.accuracy), row.group.chance === null ? null : sub(`chance ${number(row.group.chance)}`)] },
  { name: "seeds", title: "Below: the budget", key: (row) => row.seeds, numeric: true,
    show: (row) => [seedsOf(row), sub(row.group.budget), optionsOf(row.group, "budget")] },
];

function sub(text) {
  return text ? element("span", { class: "sub" }, text) : null;
}

const state = { sort: null, descending: false, shown: PAGE, filters: {}, metric: "headline" };
const WITH_PICTURES = DATA.groups.some((group) => group.picture);

function buildFilters() {
  const form = document.getElementById("filters");
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const name of FILTERS) {
    const choices = distinct(DATA.groups.map((group) => group[name]));
    state.filters[name] = "";
    form.append(select(name, name, [["", "all"], ...choices.map((one) => [one, one])], "", (event) => {
      state.filters[name] = event.target.value;
      restart();
    }));
  }
  const metrics = distinct(DATA.metrics.map((metric) => metric.name));
  const choices = [["headline", "headline of each task"], ["", "all"], ...metrics.map((one) => [one, one])];
  form.append(select("metric", "metric", choices, state.metric, (event) => {
    state.metric = event.target.value;
    restart();
  }));
  form.append(element("button", { type: "button", id: "reset", onclick: () => {
    FILTERS.forEach((name) => { state.filters[name] = ""; form.elements[name].value = ""; });
    state.metric = form.elements.metric.value = "headline";
    state.sort = null;
    restart();
  } }, "Reset"));
}

function buildHead() {
  const head = document.querySelector("#numbers thead tr");
  if (WITH_PICTURES) head.append(element("th", {}, element("span", { class: "sub" }, "")));
  for (const column of COLUMNS) {
    head.append(element("th", { class: column.numeric ? "num" : "", "data-column": column.name, title: column.title, "aria-sort": "none" },
      element("button", { type: "button", onclick: () => {
        const again = state.sort === column;
        state.descending = again ? !state.descending : Boolean(column.numeric);
        state.sort = column;
        restart();
      } }, column.name)));
  }
}

function headlineOf(group) {
  return DATA.headlines[`${group.task} ${group.modality}`] || DATA.headlines[group.task];
}

function wantedMetric(row) {
  if (state.metric === "") return true;
  return row.metric.name === (state.metric === "headline" ? headlineOf(row.group) : state.metric);
}

function visible() {
  const rows = ROWS.filter((row) => wantedMetric(row) && FILTERS.every((name) => !state.filters[name] || row.group[name] === state.filters[name]));
  if (!state.sort) return rows;
  const { key, numeric } = state.sort;
  const sign = state.descending ? -1 : 1;
  const compare = (a, b) => {
    const [left, right] = [key(a), key(b)];
    if (left === null || right === null) return (left === null) - (right === null); // what has no number stands last
    return sign * (numeric ? left - right : left.localeCompare(right, "en", { numeric: true }));
  };
  return rows.map((row, index) => [row, index]).sort(([a, i], [b, j]) => compare(a, b) || i - j).map(([row]) => row);
}

function restart() {
  state.shown = PAGE;
  drawTable();
}

function drawTable() {
  for (const cell of document.querySelectorAll("#numbers th[data-column]")) {
    const sorted = state.sort && state.sort.name === cell.dataset.column;
    cell.setAttribute("aria-sort", sorted ? (state.descending ? "descending" : "ascending") : "none");
  }
  const rows = visible();
  const body = document.querySelector("#numbers tbody");
  body.replaceChildren(...rows.slice(0, state.shown).map(line));
  if (!rows.length) body.append(element("tr", {}, element("td", { class: "empty whole", colspan: COLUMNS.length + 1 }, "No number fits these filters.")));
  document.getElementById("count").textContent = `${rows.length} of ${ROWS.length} numbers`;
  const more = document.getElementById("more");
  more.hidden = rows.length <= state.shown;
  more.textContent = `Show ${Math.min(PAGE, rows.length - state.shown)} more`;
}

function line(row) {
  const cells = COLUMNS.map((column) =>
    element("td", { class: [column.numeric && "num", column.whole && "whole"].filter(Boolean).join(" "), "data-label": column.name }, column.show(row)));
  if (WITH_PICTURES) {
    const picture = row.group.picture;
    cells.unshift(element("td", { class: "pic" }, picture ? element("img", { class: "thumb", src: picture, loading: "lazy", alt: "" }) : null));
  }
  return element("tr", { onclick: (event) => { if (!event.target.closest("a")) location.hash = row.group.id; } }, cells);
}

// ---- privacy and utility -------------------------------------------------------------------------------------------

const chosen = { dataset: "", attack: "", metric: "", conditions: "" };

// Points of which one attack is shown at first, and not all.
const CROWD = 60;

// With so many points every one has its name beside it.
const FEW = 16;

// A defense with its options.
function leveled(group) {
  return [group.defense, ...optionsAt(group, "defense")].join(" ");
}

// What points must have in common to be compared: target, budget and every option but the defense's and the attacker's own.
function conditions(group) {
  return [group.target, group.budget, ...group.options.filter((option) => !/^(defense|attack|knowledge)\./.test(option))].join(", ");
}

// What else the points of one front have in common: the attack as it was run.
function attacker(group) {
  return [group.attack, ...group.options.filter((option) => /^(attack|knowledge)\./.test(option))].join(", ");
}

// Values from the most frequent to the least.
function byFrequency(values) {
  const counts = new Map();
  values.forEach((one) => counts.set(one, (counts.get(one) || 0) + 1));
  return [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).map(([one]) => one);
}

function buildScatter() {
  const points = ROWS.filter(isPoint);
  const headlines = points.filter((row) => row.metric.name === headlineOf(row.group));
  const headline = headlines[0] || points[0];
  if (headline) Object.assign(chosen, { dataset: headline.group.dataset, attack: "", metric: headline.metric.name });
  // The dataset with the most points stands first: it has the most to compare.
  const [largest] = byFrequency(headlines.map((row) => row.group.dataset));
  if (largest) chosen.dataset = largest;
  const there = headlines.filter((row) => row.group.dataset === chosen.dataset);
  if (there.length > CROWD) [chosen.attack] = byFrequency(there.map((row) => row.group.attack));
  drawScatterControls();
}

function isPoint(row) {
  return row.status === "ok" && row.lift !== null && row.group.accuracy !== null;
}

function drawScatterControls() {
  const form = document.getElementById("scatter-controls");
  const points = ROWS.filter(isPoint);
  const here = points.filter((row) => row.group.dataset === chosen.dataset);
  const metrics = distinct(here.map((row) => row.metric.name));
  if (!metrics.includes(chosen.metric)) {
    const headlines = distinct(here.map((row) => headlineOf(row.group)));
    chosen.metric = headlines.find((name) => metrics.includes(name)) || metrics[0] || "";
  }
  const measured = here.filter((row) => row.metric.name === chosen.metric);
  const known = byFrequency(measured.map((row) => conditions(row.group)));
  if (!known.includes(chosen.conditions)) [chosen.conditions] = [...known, ""];
  const shown = measured.filter((row) => conditions(row.group) === chosen.conditions);
  const attacks = distinct(shown.map((row) => row.group.attack));
  if (!attacks.includes(chosen.attack)) chosen.attack = "";
  const change = (name) => (event) => {
    chosen[name] = event.target.value;
    drawScatterControls();
  };
  const same = (values) => values.map((one) => [one, one]);
  form.replaceChildren(
    select("dataset", "dataset", same(distinct(points.map((row) => row.group.dataset))), chosen.dataset, change("dataset")),
    select("metric", "lift of", same(metrics), chosen.metric, change("metric")),
    select("attack", "attack", [["", "all"], ...same(attacks)], chosen.attack, change("attack")),
    select("conditions", "under", same(known), chosen.conditions, change("conditions")),
  );
  drawScatter(shown.filter((row) => !chosen.attack || row.group.attack === chosen.attack), attacks);
}

// Points that no at least as accurate one is found to beat in a paired comparison; none where nothing was compared.
function paretoFront(points) {
  const sorted = [...points].sort((a, b) => b.group.accuracy - a.group.accuracy || a.lift - b.lift);
  return sorted.filter((point) => point.group.front);
}

function ticks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i += 1) found.push(Number((i * step).toPrecision(12)));
  return found;
}

function drawScatter(points, attacks) {
  const holder = document.getElementById("scatter");
  if (!points.length) {
    holder.replaceChildren(element("p", { class: "empty" }, "No cell has both a lift and the victim's accuracy."));
    return;
  }
  const narrow = window.innerWidth <= 760;
  const [width, height] = narrow ? [420, 380] : [860, 440];
  const edge = { left: 62, right: 24, top: 18, bottom: 50 };
  const xs = points.map((row) => row.group.accuracy);
  const ys = points.flatMap((row) => [row.lift, row.liftLow, row.liftHigh]).filter((one) => one !== null);
  const padded = (values, least) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = Math.max((high - low) * 0.08, (least - (high - low)) / 2);
    return [low - room, high + room];
  };
  // An axis spans five points of accuracy at least, so that noise does not look like a difference.
  let [x0, x1] = padded(xs, 0.05);
  if (x1 > 1) [x0, x1] = [Math.min(x0, 0.95), 1];
  const [y0, y1] = padded([0, ...ys], 1e-6);
  const inner = 14;
  const x = (value) => edge.left + inner + ((value - x0) / (x1 - x0)) * (width - edge.left - edge.right - 2 * inner);
  const y = (value) => height - edge.bottom - ((value - y0) / (y1 - y0)) * (height - edge.top - edge.bottom);
  const color = (row) => `var(--c${attacks.indexOf(row.group.attack) % COLORS})`;
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `Lift of ${chosen.metric} against the victim's accuracy on ${chosen.dataset}` });
  for (const tick of ticks(x0, x1, narrow ? 4 : 8)) {
    svg.append(element("line", { class: "grid", x1: x(tick), x2: x(tick), y1: edge.top, y2: height - edge.bottom }),
      element("text", { x: x(tick), y: height - edge.bottom + 18, "text-anchor": "middle" }, String(tick)));
  }
  for (const tick of ticks(y0, y1, 6)) {
    svg.append(element("line", { class: tick === 0 ? "zero" : "grid", x1: edge.left, x2: width - edge.right, y1: y(tick), y2: y(tick) }),
      element("text", { x: edge.left - 8, y: y(tick) + 4, "text-anchor": "end" }, String(tick).replace("-", "\u2212")));
  }
  svg.append(element("text", { x: (edge.left + width - edge.right) / 2, y: height - 12, "text-anchor": "middle" }, "test accuracy of the victim \u2192 more useful"),
    element("text", { transform: `translate(15 ${(edge.top + height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, "lift \u2192 leaks more"));
  const shown = attacks.filter((attack) => points.some((row) => row.group.attack === attack));
  const leading = new Set();
  for (const run of distinct(points.map((row) => attacker(row.group)))) {
    const front = paretoFront(points.filter((row) => attacker(row.group) === run));
    front.forEach((row) => leading.add(row));
    if (!front.length) continue;
    svg.append(element("polyline", { class: "front", "data-attack": front[0].group.attack, "data-ids": front.map((row) => row.group.id).join(" "),
      style: `stroke: ${color(front[0])}`, points: front.map((row) => `${x(row.group.accuracy).toFixed(1)},${y(row.lift).toFixed(1)}`).join(" ") }));
  }
  // Where there are many points, those on a front and the undefended ones have names; the others have tooltips.
  const named = (row) => points.length <= FEW || leading.has(row) || row.group.defense === "none";
  const ordered = [...points.filter((row) => !named(row)), ...points.filter(named)];
  const at = (row) => [x(row.group.accuracy), y(row.lift)];
  const taken = points.filter(named).map((row) => [at(row)[0] - 6, at(row)[1] + 4, 12]);
  for (const row of ordered) {
    const [cx, cy] = at(row);
    const options = row.group.options.join(", ");
    const title = `${row.group.attack} against ${row.group.defense}${options ? ` (${options})` : ""}, ${row.group.target}, ${row.group.budget}: lift ${number(row.lift, true)} ${interval(row.liftLow, row.liftHigh)}, accuracy ${number(row.group.accuracy)}${row.group.defense === "none" || row.group.cost.training_times === null ? "" : `, training ${times(row.group.cost.training_times)} times as long`}`;
    const mark = element("g", { class: named(row) ? "point" : "point minor", "data-id": row.group.id, tabindex: 0, role: "link",
      onclick: () => { location.hash = row.group.id; }, onkeydown: (event) => { if (event.key === "Enter") location.hash = row.group.id; } },
      element("title", {}, title));
    if (row.liftLow !== null) mark.append(element("line", { x1: cx, x2: cx, y1: y(row.liftLow), y2: y(row.liftHigh), style: `stroke: ${color(row)}` }));
    if (row.group.accuracyLow !== null) mark.append(element("line", { x1: x(Math.max(x0, row.group.accuracyLow)), x2: x(Math.min(x1, row.group.accuracyHigh)), y1: cy, y2: cy, style: `stroke: ${color(row)}` }));
    mark.append(element("circle", { cx, cy, r: 5.5, style: `fill: ${color(row)}` }));
    // Points of one attack that coincide share a label; it goes to the first free place, or is left to the tooltips.
    const together = ordered.filter((one) => named(one) && one.group.attack === row.group.attack && Math.hypot(at(one)[0] - cx, at(one)[1] - cy) < 5);
    if (together[0] === row) {
      const label = distinct(together.map((one) => together.length > 1 ? one.group.defense : leveled(one.group))).join(", ");
      const size = 6.6 * label.length;
      const free = [[9, 4], [-9 - size, 4], [9, -8], [9, 16], [-9 - size, -8], [-9 - size, 16]].map(([dx, dy]) => [cx + dx, cy + dy])
        .find(([left, base]) => left > edge.left && left + size < width - 4 && base > edge.top && base < height - edge.bottom - 2
          && taken.every(([l, b, s]) => left + size < l || l + s < left || Math.abs(b - base) > 12));
      if (free) {
        taken.push([...free, size]);
        mark.append(element("text", { class: "label", x: free[0], y: free[1] }, label));
      }
    }
    svg.append(mark);
  }
  const legend = element("ul", { class: "legend" }, shown.map((attack) => element("li", {},
    element("span", { class: "dot", style: `background: var(--c${attacks.indexOf(attack) % COLORS})` }), attack)));
  holder.replaceChildren(svg, legend);
}

// ---- the page of a cell --------------------------------------------------------------------------------------------

function fact(name, value) {
  return value === "" || value === null ? null : element("div", {}, element("dt", {}, name), element("dd", {}, value));
}

function commandBox(command) {
  const button = element("button", { type: "button", onclick: async () => {
    try {
      await navigator.clipboard.writeText(command);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "Selected";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  const code = element("code", {}, command);
  return element("div", { class: "command" }, code, button);
}

function drawCell(group) {
  const seeds = group.cells.map(([, seed]) => seed);
  const single = `${group.command} seed=${seeds[0]}`;
  const config = Object.fromEntries(Object.entries(group.config).map(([name, place]) => [name, JSON.parse(DATA.texts[place])]));
  const rows = BY_GROUP.get(group).filter((row) => row.status === "ok");
  const columns = COLUMNS.filter((column) => ["metric", "value", "control", "lift", "evidence", "seeds"].includes(column.name));
  const numbers = element("div", { class: "wide" }, element("table", {},
    element("thead", {}, element("tr", {}, columns.map((column) => element("th", { class: column.numeric ? "num" : "" }, element("button", { type: "button", tabindex: -1 }, column.name))))),
    element("tbody", {}, rows.map((row) => element("tr", {}, columns.map((column) =>
      element("td", { class: [column.numeric && "num", column.whole && "whole"].filter(Boolean).join(" "), "data-label": column.name }, column.show(row))))))));
  const reasons = new Map();
  BY_GROUP.get(group).filter((row) => row.status !== "ok").forEach((row) => {
    const reason = `${row.status}: ${DATA.texts[row.reason]}`;
    reasons.set(reason, [...(reasons.get(reason) || []), row.metric.name]);
  });
  group.cells.filter(([, , status]) => status !== "ok").forEach(([, seed, status, reason]) => {
    reasons.set(`${status}: ${DATA.texts[reason]}`, [`seed ${seed}`]);
  });
  const [device, version, commit] = group.run;
  let picture = null;
  if (group.picture) picture = element("a", { href: group.picture }, element("img", { class: "sheet", src: group.picture, alt: "nearest private image, reconstruction and control" }));
  else if (group.modality === "image" && !group.shown && !DATA.local) picture = element("p", { class: "muted" }, "Pictures of this dataset may not be shown in public; the page of whoever runs the cell has them.");
  fill(document.getElementById("cell"),
    element("p", { class: "crumb" }, element("a", { href: "#" }, "\u2190 all numbers")),
    element("h2", {}, `${group.attack} on ${group.dataset}, defense ${group.defense}`),
    group.notes.length ? element("div", { class: "notes" }, group.notes.map((place) => element("p", {}, DATA.texts[place]))) : null,
    element("dl", { class: "facts" },
      fact("task", group.task), fact("access", group.access), fact("attacker's knowledge", group.knowledge.replaceAll(",", ", ")), fact("family", group.attack_family),
      fact("setting", group.setting), fact("target", group.target), fact("defense hooks", group.defense_hooks.replaceAll(",", ", ")), fact("modality", group.modality),
      fact("budget", group.budget), fact("fidelity", group.fidelity),
      fact("queries", group.cost.queries === null ? "" : Math.round(group.cost.queries).toLocaleString("en")),
      fact("gradient evaluations", group.cost.gradient_evals === null ? "" : Math.round(group.cost.gradient_evals).toLocaleString("en")),
      fact("seconds of the attack", number(group.cost.seconds)),
      fact("training of the victim", group.cost.training_seconds === null ? "" : `${number(group.cost.training_seconds)} s${group.cost.training_times === null ? "" : `, ${times(group.cost.training_times)} times that without a defense`}`),
      fact("peak memory", group.cost.peak_memory_mb === null ? "" : `${number(group.cost.peak_memory_mb)} MB`),
      fact("run with", [`mibench ${version}`, commit, device].filter(Boolean).join(", ")),
      fact("group", group.id),
      fact(group.cells.length === 1 ? "cell (seed)" : "cells (seeds)", group.cells.map(([id, seed]) => `${id} (${seed})`).join(", "))),
    picture,
    rows.length ? element("h3", {}, "Numbers") : null, rows.length ? numbers : null,
    reasons.size ? element("h3", {}, "Not measured") : null,
    reasons.size ? element("ul", {}, [...reasons].map(([reason, names]) => element("li", {}, `${distinct(names).join(", ")} ${reason}`))) : null,
    element("h3", {}, "Run it again"),
    group.command ? commandBox(single) : null,
    group.command && seeds.length > 1 ? commandBox(`${group.command.replace("-m mibench", "-m mibench -m")} seed=${seeds.join(",")}`) : null,
    group.changed.length ? element("p", { class: "muted" }, `Today this is another cell: ${group.changed.join("; ")}.`) : null,
    element("details", {}, element("summary", {}, "Configuration"), element("pre", {}, JSON.stringify(config, null, 2))),
  );
}

// ---- published figures ---------------------------------------------------------------------------------------------

const FIGURES = [
  ["dataset", (one) => [one.dataset, sub(one.public && `public: ${one.public}`)]],
  ["target", (one) => [one.target, sub(one.resolution && `${one.resolution} px`)]],
  ["attack", (one) => [one.attack]],
  ["metric", (one) => [one.metric, sub([one.variant, one.evaluator].filter(Boolean).join(", "))]],
  ["published", (one) => [`${number(one.value)}${one.std === null ? "" : ` \u00b1 ${number(one.std)}`} ${one.unit}`.trim(),
    sub(one.targets && `${one.targets} targets, ${one.samples} samples`)], "num"],
  ["ours", (one) => (one.ours ? [element("a", { href: `#${one.ours.group}` }, number(one.ours.value)), sub(one.ours.protocol)] : []), "num"],
  ["source", (one) => [`${one.source_bib}, ${one.read}`, element("span", { class: "sub source" }, one.source), element("span", { class: "sub source" }, one.notes)], "whole"],
];

const CASES = [
  ["dataset", (one) => [one.dataset, sub(one.target)]],
  ["access", (one) => [one.access, sub(one.budget), optionsOf(one, "setting")]],
  ["defense", (one) => [one.defense, optionsOf(one, "defense")]],
  ["lift", (one) => [`${number(one.lift, true)} ${one.unit}`.trim(), sub(interval(one.low, one.high))], "num"],
  ["strongest", (one) => [element("a", { href: `#${one.group}` }, one.picked.join(", ")), sub(`of ${one.attacks} attacks`)]],
  ["victim", (one) => [number(one.accuracy), sub(one.times !== null && `trained ${times(one.times)} times as long as without`)], "num"],
];

// A section with a table of its own, hidden where there is nothing to show.
function buildTable(name, columns, rows) {
  const section = document.getElementById(name);
  section.hidden = !rows.length;
  section.querySelector("thead tr").append(...columns.map(([title, , kind]) =>
    element("th", { class: kind === "num" ? "num" : "" }, element("button", { type: "button", tabindex: -1 }, title))));
  section.querySelector("tbody").append(...rows.map((one) => element("tr", {},
    columns.map(([title, show, kind]) => element("td", { class: kind || "", "data-label": title }, show(one))))));
}

// ---- what was not measured, and the way between the two views ------------------------------------------------------

function buildMissing() {
  const groups = DATA.groups.filter((group) => group.cells.every(([, , status]) => status !== "ok"));
  const items = groups.map((group) => {
    const [, , status, reason] = group.cells[0];
    return element("li", {}, element("a", { href: `#${group.id}` }, `${group.attack} / ${group.defense} / ${group.dataset}`), ` ${status}. ${DATA.texts[reason]}`);
  });
  items.push(...DATA.setAside.map(([name, reason]) => element("li", {}, element("code", {}, name), ` set aside: ${reason}`)));
  if (!items.length) return;
  const section = document.getElementById("missing");
  const parts = [groups.length && `${groups.length} skipped or failed`, DATA.setAside.length && `${DATA.setAside.length} files set aside`].filter(Boolean);
  section.hidden = false;
  section.querySelector("summary").textContent = parts.join(", ");
  section.querySelector("ul").replaceChildren(...items);
}

function route() {
  const group = DATA.groups.find((one) => one.id === location.hash.slice(1) || one.cells.some(([id]) => id === location.hash.slice(1)));
  document.getElementById("overview").hidden = Boolean(group);
  document.getElementById("cell").hidden = !group;
  if (group) {
    drawCell(group);
    window.scrollTo(0, 0);
  }
}

function count(total, one, many = `${one}s`) {
  return `${total.toLocaleString("en")} ${total === 1 ? one : many}`;
}

const measured = DATA.groups.filter((group) => group.cells.some(([, , status]) => status === "ok"));
document.getElementById("summary").textContent = [
  count(distinct(measured.map((group) => group.attack)).length, "attack"), count(distinct(measured.map((group) => group.defense)).length, "defense"),
  count(distinct(measured.map((group) => group.dataset)).length, "dataset"), count(measured.flatMap((group) => group.cells).length, "cell"),
].join(" \u00b7 ") + (DATA.local ? " \u00b7 with the shards of this machine; keep this page to yourself" : "");
document.getElementById("more").addEventListener("click", () => {
  state.shown += PAGE;
  drawTable();
});
window.addEventListener("hashchange", route);
let width = window.innerWidth;
window.addEventListener("resize", () => {
  if ((width <= 760) !== (window.innerWidth <= 760)) drawScatterControls();
  width = window.innerWidth;
});
buildFilters();
buildHead();
drawTable();
buildScatter();
buildTable("worst", CASES, DATA.worst);
buildTable("published", FIGURES, DATA.published);
buildMissing();
route();
