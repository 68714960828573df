// Lift against what an attack asks of the undefended model: queries or gradients, on a logarithmic axis.

/** [attack, groups from the smallest to the largest budget], as the view names them. */
function curveLines(view) {
  if (view.curves) return view.curves.map(([attack, list]) => [attack, list.map(index => groups[index])]);
  const own = groups.filter(group => group.view === view.index && group.defense === undefended && Number.isFinite(group.lift));
  return unique(own.map(group => group.attack)).map(attack => [attack, own.filter(group => group.attack === attack)]);
}

function effortOf(view, asked) {
  if (asked === "queries" || asked === "gradients") return asked;
  const count = name => curveLines(view).flatMap(([, list]) => list).filter(group => group[name] > 0).length;
  return count("gradients") >= count("queries") ? "gradients" : "queries";
}

function curvesSvg(view, effort, lines) {
  const width = figureWidth(1240), frame = {width, height: width < 500 ? 380 : 440, left: 46, right: 60, top: 34, bottom: 46};
  const all = lines.flatMap(([, list]) => list), efforts = all.map(group => group[effort]);
  const lifts = all.map(group => group.lift), reach = spanOf([0, ...lifts]) || 1;
  const cut = value => Math.max(Math.min(0, ...lifts) - 0.3 * reach, Math.min(Math.max(0, ...lifts) + 0.3 * reach, value));
  const ends = all.flatMap(group => [group.lift, group.liftLow, group.liftHigh]).filter(Number.isFinite).map(cut);
  const x = logScale(logDomain(efforts), [frame.left + 8, width - frame.right]);
  const margin = reach * 0.05;
  const y = linearScale([Math.min(0, ...ends) - margin, Math.max(0, ...ends) + margin], [frame.height - frame.bottom, frame.top]);
  const at = group => [x(group[effort]), y(group.lift)];
  const coloured = lines.filter(([, list]) => list.length > 1).slice(0, LINE_COLOURS).map(([attack]) => attack);
  const colourOf = attack => (coloured.includes(attack) ? `var(--line${coloured.indexOf(attack)})` : "var(--soft)");
  const parts = [axesSvg(frame, x, y, {xName: `${effort} (logarithmic)`, yName: `lift over control${view.unit ? `, ${view.unit}` : ""}`, xText: formatPower})];
  parts.push(`<clipPath id="curves-clip"><rect x="${frame.left}" y="${frame.top - 8}" width="${frame.width - frame.left}" height="${frame.height - frame.top - frame.bottom + 8}"/></clipPath>`);
  for (const [attack, list] of lines) {
    const colour = colourOf(attack);
    if (list.length > 1) parts.push(element("path", {d: list.map((group, place) => `${place ? "L" : "M"}${at(group).map(value => value.toFixed(1)).join(" ")}`).join(""), fill: "none", stroke: colour, "stroke-width": 2}));
    for (const group of list) {
      const [px, py] = at(group), leak = toneOf(group.verdict) === "leak";
      if (Number.isFinite(group.liftLow)) parts.push(`<g clip-path="url(#curves-clip)">${element("line", {x1: px, x2: px, y1: y(group.liftLow), y2: y(group.liftHigh), stroke: colour, "stroke-opacity": 0.4})}</g>`);
      parts.push(pointSvg(group, px, py, 4.2, {fill: leak ? colour : "var(--card)", stroke: colour, "stroke-width": 1.6}));
    }
  }
  const order = [...lines].sort((a, b) => coloured.includes(b[0]) - coloured.includes(a[0]) || b[1][b[1].length - 1].lift - a[1][a[1].length - 1].lift || a[0] - b[0]);
  const labels = order.map(([attack, list]) => ({text: shortLabel(titleOf("attack", attack)), colour: coloured.includes(attack) ? colourOf(attack) : "var(--ink)", bold: coloured.includes(attack), must: false, points: [...list].reverse().map(at)}));
  parts.push(...placeLabels(labels, all.map(at), lines.flatMap(([, list]) => pointsAlong(list.map(at))), frame).map(labelSvg));
  return figureSvg(frame, `Lift of ${lines.length} attacks against ${effort}; the same numbers stand in the table below`, parts);
}

function drawCurves({on, effort: asked}, redraw) {
  const controls = document.getElementById("curves-controls"), figure = document.getElementById("curves-figure"), table = document.getElementById("curves-table");
  const effort = effortOf(on, asked), every = curveLines(on);
  const lines = every.map(([attack, list]) => [attack, list.filter(group => group[effort] > 0 && Number.isFinite(group.lift)).sort((a, b) => a[effort] - b[effort] || a.index - b.index)]).filter(([, list]) => list.length);
  controls.innerHTML = `<span class="muted small">${escapeHtml(viewName(on))}, undefended</span>` + selectHtml("against", "effort", [["gradients", "gradients"], ["queries", "queries"]], effort);
  controls.onchange = event => {
    changeChoices({effort: event.target.value});
    redrawKeepingFocus(controls, `[name="effort"]`, redraw);
  };
  if (!lines.length) {
    figure.innerHTML = `<p class="muted">No attack of this view takes ${effort}.</p>`;
    table.innerHTML = "";
    return;
  }
  figure.innerHTML = curvesSvg(on, effort, lines);
  tipOnPoints(figure, group => `<br>${formatCount(group.queries)} queries, ${formatCount(group.gradients)} gradients`);
  const without = every.filter(([attack]) => !lines.some(([other]) => other === attack)).map(([attack]) => titleOf("attack", attack));
  const rows = lines.flatMap(([, list]) => list), column = kind => groupColumn(kind, group => group, scaleOf(rows));
  const columns = [
    {head: "attack", cell: group => groupLink(group, titleOf("attack", group.attack)), value: group => attacks[group.attack].name},
    {head: "options", cell: group => escapeHtml(group.attackLevel), value: group => group.attackLevel},
    {head: "queries", num: true, cell: group => formatCount(group.queries), value: group => group.queries},
    {head: "gradients", num: true, cell: group => formatCount(group.gradients), value: group => group.gradients},
    column("lift"), column("low"), column("high"), column("interval"), column("verdict"), column("id"),
  ];
  table.innerHTML = `<div class="tools"></div>${without.length ? `<p class="small muted note">Without ${effort}, so not drawn: ${escapeHtml(without.join(", "))}.</p>` : ""}<details><summary>The same numbers as a table</summary>${tableHtml(columns, rows, {label: "Points of the curves"})}</details>`;
  putFigureDownload(table.firstChild, () => document.querySelector("#curves-figure svg"), `mibench-curves-${effort}`, `Lift against ${effort}, ${viewName(on)}`);
  putDownloads(table.firstChild, () => ({name: `mibench-curves-${effort}`, columns, rows, sources: sourcesOf(rows)}), "the points of the curves");
}
