// The privacy-utility plane of one attack: accuracy to the right, lift upwards; both with their intervals. All defenses
// are grey, up to six are coloured and named at their lines.

/** Every setting of every defense under the attack whose accuracy and lift are known. */
function planePoints(view, attack) {
  return view.defenses.flatMap(defense => (cellOf(view, attack, defense) || []).filter(group => Number.isFinite(group.accuracy) && Number.isFinite(group.lift)));
}

/** The chosen defenses that are in the plane; without a choice the four whose points lie furthest apart. */
function pickedDefenses(points, pick) {
  const present = unique(points.map(group => group.defense)).filter(defense => defense !== undefended);
  if (pick === "-") return [];
  const asked = unique(pick.split(",")).map(name => defenseByName.get(name)?.index).filter(index => present.includes(index)).slice(0, LINE_COLOURS);
  if (asked.length) return asked;
  const height = spanOf(points.map(group => group.lift)) || 1;
  const spread = defense => {
    const own = points.filter(group => group.defense === defense);
    return spanOf(own.map(group => group.accuracy)) + 0.6 * spanOf(own.map(group => group.lift)) / height;
  };
  return [...present].sort((a, b) => spread(b) - spread(a) || a - b).slice(0, 4).sort((a, b) => a - b);
}

function spanOf(values) {
  return Math.max(...values) - Math.min(...values);
}

function planeFrame(points, unit) {
  const width = figureWidth(880), frame = {width, height: width < 500 ? 380 : 480, left: 46, right: 22, top: 34, bottom: 46};
  const ends = points.flatMap(group => [group.accuracy, group.accuracyLow, group.accuracyHigh]).filter(Number.isFinite);
  const lifts = points.map(group => group.lift), reach = spanOf([0, ...lifts]) || 1;
  // an interval may be far wider than all lifts together: it is cut at the frame rather than pressing all points flat
  const cut = value => Math.max(Math.min(0, ...lifts) - 0.35 * reach, Math.min(Math.max(0, ...lifts) + 0.45 * reach, value));
  const reaches = points.flatMap(group => [group.lift, group.liftLow, group.liftHigh]).filter(Number.isFinite).map(cut);
  const [low, high] = [Math.min(0, ...reaches), Math.max(0, ...reaches)], margin = (high - low || 1) * 0.05;
  const side = Math.max(0.02, spanOf(ends) * 0.04);
  const x = linearScale([Math.max(0, Math.min(...ends) - side), Math.min(1, Math.max(...ends) + side)], [frame.left, width - frame.right]);
  const y = linearScale([low - margin, high + margin], [frame.height - frame.bottom, frame.top]);
  return {frame, x, y, yName: `lift over control${unit ? `, ${unit}` : ""}`};
}

function planeSvg(view, points, picked) {
  const {frame, x, y, yName} = planeFrame(points, view.unit);
  const baseline = points.find(group => group.defense === undefended);
  const at = group => [x(group.accuracy), y(group.lift)];
  const path = list => list.map((group, place) => `${place ? "L" : "M"}${at(group).map(value => value.toFixed(1)).join(" ")}`).join("");
  const lineOf = defense => points.filter(group => group.defense === defense);
  const parts = [axesSvg(frame, x, y, {xName: "accuracy of the defended model", yName, xText: value => `${Number((value * 100).toPrecision(4))} %`})];
  const clip = `clip-path="url(#plane-clip)"`;
  parts.push(`<clipPath id="plane-clip"><rect x="${frame.left}" y="${frame.top - 8}" width="${frame.width - frame.left - frame.right}" height="${frame.height - frame.top - frame.bottom + 8}"/></clipPath>`);
  if (baseline) {
    const [bx, by] = at(baseline), dotted = {stroke: "var(--ours)", "stroke-dasharray": "2 4"};
    parts.push(element("line", {x1: bx, x2: bx, y1: frame.top, y2: frame.height - frame.bottom, ...dotted}), element("line", {x1: frame.left, x2: frame.width - frame.right, y1: by, y2: by, ...dotted}));
  }
  const others = unique(points.map(group => group.defense)).filter(defense => defense !== undefended && !picked.includes(defense));
  for (const defense of others) {
    parts.push(element("path", {d: path(lineOf(defense)), fill: "none", stroke: "var(--soft)", "stroke-opacity": 0.25}));
    for (const group of lineOf(defense)) parts.push(ringSvg(view, group, ...at(group), 3, "var(--soft)"), pointSvg(group, ...at(group), 3, {fill: "var(--soft)", "fill-opacity": 0.45}));
  }
  picked.forEach((defense, place) => {
    const colour = `var(--line${place})`, own = lineOf(defense);
    for (const group of own) parts.push(`<g ${clip} stroke="${colour}" stroke-opacity="0.45">${whiskerSvg(group, x, y)}</g>`);
    parts.push(element("path", {d: path(own), fill: "none", stroke: colour, "stroke-width": 2, "stroke-linejoin": "round"}));
    own.forEach((group, step) => {  // the dot grows with the strength of the defense
      const radius = 3.4 + 1.1 * Math.min(step, 4);
      parts.push(ringSvg(view, group, ...at(group), radius, colour), pointSvg(group, ...at(group), radius, {fill: colour, stroke: "var(--card)"}));
    });
  });
  if (baseline) parts.push(`<g ${clip} stroke="var(--ours)" stroke-opacity="0.6">${whiskerSvg(baseline, x, y)}</g>`, pointSvg(baseline, ...at(baseline), 6.5, {fill: "var(--card)", stroke: "var(--ours)", "stroke-width": 2.4}));
  const labels = picked.map((defense, place) => ({text: shortLabel(titleOf("defense", defense)), colour: `var(--line${place})`, must: true, points: leastCrowded(lineOf(defense), points, at)}));
  if (baseline) labels.unshift({text: "no defense", colour: "var(--ours)", must: true, points: [at(baseline)]});
  const lines = picked.flatMap(defense => pointsAlong(lineOf(defense).map(at)));
  parts.push(...placeLabels(labels, points.map(at), lines, frame).map(labelSvg));
  return figureSvg(frame, `Accuracy and lift of ${points.length} models under ${titleOf("attack", points[0].attack)}; the same numbers stand in the table below`, parts);
}

/** Both intervals of a point. */
function whiskerSvg(group, x, y) {
  const parts = [];
  if (Number.isFinite(group.liftLow)) parts.push(element("line", {x1: x(group.accuracy), x2: x(group.accuracy), y1: y(group.liftLow), y2: y(group.liftHigh)}));
  if (Number.isFinite(group.accuracyLow)) parts.push(element("line", {x1: x(group.accuracyLow), x2: x(group.accuracyHigh), y1: y(group.lift), y2: y(group.lift)}));
  return parts.join("");
}

function frontShare(view, group) {
  return view.front?.[group.index];
}

/** A ring around a point that lies on the front in at least half of the random draws. */
function ringSvg(view, group, x, y, radius, colour) {
  return frontShare(view, group) >= 0.5 ? element("circle", {class: "ring", cx: x, cy: y, r: radius + 4, fill: "none", stroke: colour, "stroke-width": 1.2}) : "";
}

/** The points of a line, the one furthest from the points of others first: there its label is least in the way. */
function leastCrowded(own, points, at) {
  const far = group => Math.min(...points.filter(other => other.defense !== group.defense).map(other => Math.hypot(at(group)[0] - at(other)[0], at(group)[1] - at(other)[1])));
  return [...own].sort((a, b) => far(b) - far(a) || a.index - b.index).map(at);
}

function drawPlane({view, attack, pick}, redraw) {
  const figure = document.getElementById("plane-figure"), chips = document.getElementById("plane-picks"), table = document.getElementById("plane-table");
  const points = attack < 0 ? [] : planePoints(view, attack);
  document.getElementById("plane-picks-title").textContent = points.length ? `Defenses under ${titleOf("attack", attack)}` : "Defenses";
  if (points.filter(group => group.defense !== undefended).length < 2) {
    figure.innerHTML = `<p class="muted">The accuracy of the defended models was not measured here, so there is no plane to draw.</p>`;
    chips.innerHTML = table.innerHTML = "";
    return;
  }
  const picked = pickedDefenses(points, pick);
  figure.innerHTML = planeSvg(view, points, picked);
  tipOnPoints(figure, group => (frontShare(view, group) === undefined ? "" : `<br>on the front in ${formatPercent(frontShare(view, group))} of draws`));
  const present = unique(points.map(group => group.defense)).filter(defense => defense !== undefended).sort((a, b) => a - b);
  chips.innerHTML = chipsHtml(present.map(defense => [defenses[defense].name, titleOf("defense", defense)]), picked.map(defense => defenses[defense].name));
  chips.onclick = event => {
    const name = event.target.dataset.pick;
    if (!name) return;
    const names = picked.map(defense => defenses[defense].name);
    const next = names.includes(name) ? names.filter(other => other !== name) : [...names.slice(-(LINE_COLOURS - 1)), name];
    changeChoices({pick: next.join(",") || "-"});
    redrawKeepingFocus(chips, `[data-pick="${CSS.escape(name)}"]`, redraw);
  };
  drawPlaneTable(table, view, points, attack);
}

function drawPlaneTable(holder, view, points, attack) {
  const pick = group => group, column = kind => groupColumn(kind, pick, scaleOf(points));
  const columns = [
    {head: "defense", cell: group => escapeHtml(titleOf("defense", group.defense)), value: group => defenses[group.defense].name},
    {head: "setting", cell: group => settingLink(group, levelText(group) || "undefended"), value: group => group.level},
    column("accuracy"), {head: "accuracy low", num: true, value: group => group.accuracyLow}, {head: "accuracy high", num: true, value: group => group.accuracyHigh},
    column("lift"), column("low"), column("high"), column("interval"),
    {head: "on the front", num: true, cell: group => formatPercent(frontShare(view, group)), value: group => frontShare(view, group), title: "share of random draws of targets in which no other setting is better in both"},
    column("verdict"), column("id"),
  ];
  holder.innerHTML = `<div class="tools"></div><details><summary>The same numbers as a table</summary><div></div></details>`;
  putFigureDownload(holder.firstChild, () => document.querySelector("#plane-figure svg"), `mibench-plane-${attacks[attack].name}`, `Privacy and utility under ${titleOf("attack", attack)}, ${viewName(view)}`);
  putDownloads(holder.firstChild, () => ({name: `mibench-plane-${attacks[attack].name}`, columns, rows: points, sources: sourcesOf(points)}), "the points of the plane");
  holder.querySelector("details > div").innerHTML = tableHtml(columns, points, {label: "Points of the plane"});
}
