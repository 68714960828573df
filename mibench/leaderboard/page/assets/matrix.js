// Attack x defense. Colour is the lift, height is the verdict, so that no verdict rests on colour. The matrix is a
// real table: one tab stop, arrows move, Enter opens the cell.

const STEPS = ["below", "zero", "step1", "step2", "step3", "step4", "step5"];

/** One of seven colour steps; binned, so that the legend can be read. */
function stepOf(lift, bins) {
  return STEPS[bins.filter(border => lift > border).length];
}

/** Full height where the verdict is a leak; shorter where something was seen; shortest where nothing was shown. */
function heightOf(group) {
  return {leak: "", open: "half", calm: "low"}[toneOf(group.verdict)];
}

function matrixColumns(view, rows) {
  return view.defenses.filter(defense => rows.some(attack => cellOf(view, attack, defense) || emptyOf(view, attack, defense)));
}

function cellLabel(view, attack, defense, list) {
  const numbers = list.map(group => [levelText(group), `lift ${withUnit(formatNumber(group.lift, true), view.unit)}`, formatInterval(group.liftLow, group.liftHigh), Number.isFinite(group.accuracy) ? `accuracy ${formatNumber(group.accuracy)}` : "", verdicts[group.verdict]?.word].filter(Boolean).join(" "));
  return `${pairTitle(attack, defense)}: ${numbers.join("; ")}`;
}

function matrixCellHtml(view, attack, defense) {
  const list = cellOf(view, attack, defense), place = `data-attack="${attack}" data-defense="${defense}" tabindex="-1"`;
  if (list) {
    const bars = list.map(group => `<i class="${stepOf(group.lift, view.bins)} ${heightOf(group)}"><b>${formatShort(group.lift)}</b></i>`).join("");
    return `<td><button type="button" ${place} aria-label="${escapeHtml(cellLabel(view, attack, defense, list))}">${bars}</button></td>`;
  }
  const empty = emptyOf(view, attack, defense);
  const words = {vacuous: "cannot matter", withheld: "withheld", failed: "failed"}[empty?.kind] || "not measured";
  const mark = {vacuous: "·", withheld: "×", failed: "!"}[empty?.kind] || "";
  return `<td><span class="empty${mark ? "" : " hatched"}" ${place} role="img" aria-label="${escapeHtml(`${pairTitle(attack, defense)}: ${words}`)}">${mark}</span></td>`;
}

function accuracyHtml(view, columns) {
  if (!columns.some(defense => view.accuracy?.[defense])) return "";
  const cell = defense => {
    const range = view.accuracy?.[defense];
    if (!range) return `<td>–</td>`;
    const [low, high] = range.map(share => (share * 100).toFixed(0));
    return `<td aria-label="${low === high ? high : `${low} to ${high}`} per cent"><div><span class="share">${high}${low === high ? "" : `<span class="from">–${low}</span>`}</span></div></td>`;
  };
  return `<tfoot><tr><th scope="row">accuracy, %</th>${columns.map(defense => cell(defense) + (defense === undefended ? "<td></td>" : "")).join("")}</tr></tfoot>`;
}

function drawMatrix({view, access}) {
  const holder = document.getElementById("matrix"), rows = attacksOf(view, access), columns = matrixColumns(view, rows);
  const gap = columns.includes(undefended) ? "<td></td>" : "";
  const heads = columns.map(defense => `<th scope="col"><a href="${escapeHtml(methodAddress("defense", defense))}" title="${escapeHtml(titleOf("defense", defense))}">${escapeHtml(titleOf("defense", defense))}</a></th>${defense === undefended ? gap : ""}`).join("");
  const several = view.accesses.length > 1;
  const body = rows.map(attack => `<tr><th scope="row"><a href="${escapeHtml(methodAddress("attack", attack))}" title="${escapeHtml(titleOf("attack", attack))}">${escapeHtml(titleOf("attack", attack))}</a>${several ? `<small>${escapeHtml(accesses[accessOf(view, attack)] || accessOf(view, attack))}</small>` : ""}</th>${columns.map(defense => matrixCellHtml(view, attack, defense) + (defense === undefended ? gap : "")).join("")}</tr>`).join("");
  const cols = columns.map(defense => `<col class="cell">${defense === undefended ? `<col class="gap">` : ""}`).join("");
  const size = rows.length <= 4 ? "tall" : rows.length <= 10 ? "middle" : "small";
  holder.innerHTML = `<table role="grid" aria-labelledby="matrix-title" class="${size}" style="--columns:${columns.length}"><colgroup><col class="names">${cols}</colgroup><thead><tr><td></td>${heads}</tr></thead><tbody>${body}</tbody>${accuracyHtml(view, columns)}</table>${aloneHtml(view)}`;
  const first = holder.querySelector("tbody button");
  if (first) first.tabIndex = 0;
  followMatrix(holder, view);
  drawLegend(view, rows, columns);
}

function aloneHtml(view) {
  const count = (view.alone || []).length;
  const unpaired = view.paired === false ? `<p class="small muted note">Old rows without values by target: differences between them are unpaired.</p>` : "";
  return (count ? `<p class="small muted note">${count} more ${count > 1 ? "attacks were" : "attack was"} run on the undefended model only: <a href="#/attacks" data-keep>ranked below</a>.</p>` : "") + unpaired;
}

function drawLegend(view, rows, columns) {
  const tick = value => String(value).replace(/^(-?)0\./, "$1.").replace("-", "−");
  const {bins} = view;
  const names = STEPS.map((step, place) => (place === 0 ? `&lt;${tick(bins[0])}` : place === 1 ? "≈ 0" : place === 6 ? `&gt;${tick(bins[5])}` : `${tick(bins[place - 1])}–${tick(bins[place])}`));
  const kinds = new Set();
  for (const attack of rows) for (const defense of columns) if (!cellOf(view, attack, defense)) kinds.add(emptyOf(view, attack, defense)?.kind || "missing");
  const key = (mark, words) => `<span class="key">${mark}${words}</span>`;
  document.getElementById("matrix-legend").innerHTML = `<span class="ramp" role="img" aria-label="Colours of the lift over control">${STEPS.map((step, place) => `<span><i class="${step}"></i>${names[place]}</span>`).join("")}</span><span>lift over control${view.unit ? `, ${escapeHtml(view.unit)}` : ""}</span>`
    + ["leak", "open", "calm"].map(tone => toneKey(tone, rows, columns, view)).join("")
    + (kinds.has("missing") ? key(`<i class="hatched"></i>`, "not measured") : "") + (kinds.has("vacuous") ? key("· ", "cannot matter") : "") + (kinds.has("withheld") ? key("× ", "withheld") : "") + (kinds.has("failed") ? key("! ", "failed") : "")
    + `<span>stripes: the settings of a defense, weak → strong</span>`;
}

/** What a height means: the verdicts of this matrix that have it, in their own words. */
function toneWords(tone, rows, columns, view) {
  const present = new Set(rows.flatMap(attack => columns.flatMap(defense => (cellOf(view, attack, defense) || []).map(group => group.verdict))));
  return verdicts.filter((verdict, index) => verdict.tone === tone && present.has(index)).map(verdict => verdict.word).join(", ");
}

function toneKey(tone, rows, columns, view) {
  const words = toneWords(tone, rows, columns, view), height = {leak: "", open: "half", calm: "low"}[tone];
  return words ? `<span class="key"><i class="step3 ${height}"></i>${escapeHtml(words)}</span>` : "";
}

/** Pointer, focus and keys of the matrix. */
function followMatrix(holder, view) {
  const placeOf = target => target.closest("[data-attack]");
  const show = cell => {
    const attack = Number(cell.dataset.attack), defense = Number(cell.dataset.defense);
    showTip(cellOf(view, attack, defense) ? cellTipHtml(view, attack, defense) : emptyTipHtml(attack, defense, emptyOf(view, attack, defense)), cell.getBoundingClientRect());
  };
  holder.onmouseover = event => (placeOf(event.target) ? show(placeOf(event.target)) : hideTip());
  holder.onmouseleave = hideTip;
  holder.onfocusin = event => { if (placeOf(event.target)?.matches(":focus-visible")) show(placeOf(event.target)); };
  holder.onfocusout = hideTip;
  holder.onclick = event => {
    const cell = event.target.closest("button[data-attack]");
    if (!cell) return;
    hideTip();
    moveFocus(holder, cell);
    openCell(view, Number(cell.dataset.attack), Number(cell.dataset.defense));
  };
  holder.onkeydown = event => {
    const cell = placeOf(event.target);
    if (!cell) return;
    if (event.key === "Escape") return hideTip();
    const next = neighbourOf(holder, cell, event.key);
    if (next === undefined) return;
    event.preventDefault();
    if (next) {
      moveFocus(holder, next);
      show(next);
    }
  };
}

function moveFocus(holder, cell) {
  for (const other of holder.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
  cell.tabIndex = 0;
  cell.focus();
}

/** The cell that a key leads to; undefined for other keys, null at the border. */
function neighbourOf(holder, cell, key) {
  const rows = [...holder.querySelectorAll("tbody tr")].map(row => [...row.querySelectorAll("[data-attack]")]);
  const row = rows.findIndex(cells => cells.includes(cell)), column = rows[row].indexOf(cell);
  const targets = {ArrowRight: [row, column + 1], ArrowLeft: [row, column - 1], ArrowDown: [row + 1, column], ArrowUp: [row - 1, column], Home: [row, 0], End: [row, rows[row].length - 1]};
  if (!targets[key]) return undefined;
  const [r, c] = targets[key];
  return rows[r]?.[c] ?? null;
}

/** The matrix as a figure of its own, for papers and slides. */
function matrixSvg({view, access}) {
  const rows = attacksOf(view, access), columns = matrixColumns(view, rows), width = 34, height = 26;
  const longest = (list, kind) => Math.max(0, ...list.map(index => titleOf(kind, index).length)) * CHARACTER;
  const left = 24 + longest(rows, "attack"), top = 28 + 0.79 * longest(columns, "defense");  // heads lean by 52 degrees
  const frame = {width: Math.max(left + columns.length * width + 0.62 * longest(columns.slice(-3), "defense"), left + 560), height: top + rows.length * height + 80};
  const colour = {below: "var(--below)", zero: "var(--zero)", step1: "var(--step1)", step2: "var(--step2)", step3: "var(--step3)", step4: "var(--step4)", step5: "var(--step5)"};
  const parts = columns.map((defense, place) => `<text transform="translate(${left + (place + 0.5) * width} ${top - 8}) rotate(-52)" font-size="12" fill="var(--ink)">${escapeHtml(titleOf("defense", defense))}</text>`);
  rows.forEach((attack, r) => {
    parts.push(element("text", {x: left - 8, y: top + (r + 0.5) * height + 4, "text-anchor": "end", "font-size": 12, fill: "var(--ink)"}, escapeHtml(titleOf("attack", attack))));
    columns.forEach((defense, c) => {
      const list = cellOf(view, attack, defense), x = left + c * width, y = top + r * height;
      if (!list) return parts.push(element("text", {x: x + width / 2, y: y + height / 2 + 4, "text-anchor": "middle", "font-size": 11, fill: "var(--soft)"}, {vacuous: "·", withheld: "×", failed: "!"}[emptyOf(view, attack, defense)?.kind] || "–"));
      const wide = (width - 2) / list.length;
      list.forEach((group, place) => {
        const part = {"": 1, half: 0.74, low: 0.38}[heightOf(group)], high = (height - 2) * part;
        parts.push(`<rect x="${(x + 1 + place * wide).toFixed(2)}" y="${(y + height / 2 - high / 2).toFixed(2)}" width="${(wide - (list.length > 1 ? 1 : 0)).toFixed(2)}" height="${high.toFixed(2)}" rx="1.5" fill="${colour[stepOf(group.lift, view.bins)]}"><title>${escapeHtml(`${pairTitle(attack, defense)} ${levelText(group)} ${formatNumber(group.lift, true)} ${formatInterval(group.liftLow, group.liftHigh)}`)}</title></rect>`);
      });
    });
  });
  const base = frame.height - 62;
  STEPS.forEach((step, place) => parts.push(element("rect", {x: left + place * 44, y: base, width: 44, height: 9, fill: colour[step]}), element("text", {x: left + place * 44 + 22, y: base + 22, "text-anchor": "middle", "font-size": 10, fill: "var(--soft)"}, place === 0 ? `&lt;${view.bins[0]}` : place === 1 ? "≈ 0" : place === 6 ? `&gt;${view.bins[5]}` : `${view.bins[place - 1]}–${view.bins[place]}`)));
  parts.push(element("text", {x: left, y: base + 38, "font-size": 11, fill: "var(--soft)"}, escapeHtml(`lift over control${view.unit ? `, ${view.unit}` : ""}; ${viewName(view)}`)));
  const heights = [["leak", "full height"], ["open", "lower"], ["calm", "lowest"]].map(([tone, words]) => [words, toneWords(tone, rows, columns, view)]).filter(([, words]) => words);
  parts.push(element("text", {x: left, y: base + 54, "font-size": 11, fill: "var(--soft)"}, escapeHtml(heights.map(([words, told]) => `${words}: ${told}`).join("; "))));
  const holder = document.createElement("div");
  holder.innerHTML = figureSvg(frame, "What each attack still gets past each defense", parts);
  return holder.firstChild;
}

/** Every number of the shown matrix as a table, for the downloads. */
function matrixTable() {
  const {view, access} = currentChoices(), attackList = attacksOf(view, access), pick = group => group;
  const rows = attackList.flatMap(attack => view.defenses.flatMap(defense => cellOf(view, attack, defense) || []));
  const column = kind => groupColumn(kind, pick, [0, 1]);
  const columns = [
    {head: "attack", value: group => attacks[group.attack].name}, {head: "defense", value: group => defenses[group.defense].name}, {head: "setting", value: group => group.level},
    column("accuracy"), column("control"), column("lift"), column("low"), column("high"), column("verdict"), column("seeds"), column("id"),
  ];
  return {name: `mibench-matrix-${view.id}`, columns, rows, sources: sourcesOf(rows)};
}
