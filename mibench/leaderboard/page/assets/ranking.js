// Ranks: defenses at the same utility, attacks on undefended models, worst cases, published figures. Ranks, bands and
// differences come from the build; here they are only laid out.

const WITHIN = [["2", "2 points"], ["5", "5 points"], ["10", "10 points"], ["100", "any loss"]];

function drawDefenseRanks(state, redraw) {
  const {view, access, within, attack} = state, controls = document.getElementById("defenses-controls"), holder = document.getElementById("defenses-table");
  if (attack < 0) {
    controls.innerHTML = `<span class="muted small">${escapeHtml(viewName(view))}</span>`;
    holder.innerHTML = `<p class="muted">No attack of this view met two defenses and the undefended model.</p>`;
    return;
  }
  const known = rankedAttacks(view, access).map(index => [attacks[index].name, `${titleOf("attack", index)} (${accesses[accessOf(view, index)] || accessOf(view, index)})`]);
  controls.innerHTML = selectHtml(`${viewName(view)}: attack`, "attack", known, attacks[attack].name) + selectHtml("accuracy within", "within", WITHIN, within, "of the undefended model");
  controls.onchange = event => {
    const {name, value} = event.target;
    changeChoices(name === "attack" ? {attack: value, pick: ""} : {within: value === "5" ? "" : value});
    redrawKeepingFocus(controls, `[name="${name}"]`, redraw);
  };
  const {rows, outside, baseline, columns} = defenseRanking(state);
  const measured = Number.isFinite(baseline?.accuracy) || view.accuracy?.[undefended];
  const notes = [
    measured ? "" : `<p class="small note"><b>The accuracy of the defended models was not measured here.</b> Every defense stands at its strongest setting, so this is not a comparison at the same utility.</p>`,
    view.paired === false ? `<p class="small muted note">These rows hold no values by target: the differences are unpaired, so their intervals are wide and more defenses share a rank.</p>` : "",
    outside.length ? `<p class="small muted note">${within === "100" ? "Not ranked" : `No setting stays within ${within} points`}: ${outside.map(defense => methodLink("defense", defense)).join(", ")}.</p>` : "",
  ];
  putTable(holder, {
    name: `mibench-defenses-${attacks[attack].name}`, label: "Defenses at the same utility", columns, rows,
    sources: () => sourcesOf(rows.map(row => row.group)), rowClass: row => (row.reference ? "reference" : ""), after: notes.join(""),
  });
}

/** The rows of a ranking with the undefended victim last, and the columns that show them. */
function defenseRanking({view, within, attack}) {
  const ranking = rankingOf(view, attack, within);
  const baseline = baselineOf(view, attack);
  const rows = ranking.rows.map(([g, best, last, difference, low, high, word]) => ({group: groups[g], best, last, found: {difference, low, high, word}}));
  if (baseline) rows.push({group: baseline, reference: true});
  const pick = row => row.group, scale = scaleOf(rows.map(pick));
  const column = kind => groupColumn(kind, pick, scale, kind === "bar" && baseline ? () => baseline.lift : undefined);
  const columns = [
    {head: "rank", num: true, cell: row => (row.reference ? "" : formatRank(row.best, row.last)), value: row => (row.reference ? "" : formatRank(row.best, row.last))},
    {head: "defense", cell: row => `${row.reference ? "no defense" : methodLink("defense", row.group.defense)} <span class="muted small">${settingHtml(row.reference ? "" : levelText(row.group))}</span>`, value: row => defenses[row.group.defense].name},
    {head: "setting", value: row => row.group.level},
    column("accuracy"), column("bar"), column("lift"), column("low"), column("high"),
    {head: "than undefended", opt: true, keep: true, cell: row => (row.reference ? "" : differenceHtml(row.found)), value: row => (row.reference ? "" : differenceText(row.found))},
    column("verdict"), column("id"),
  ];
  return {rows, outside: ranking.outside || [], baseline, columns};
}

/** A few rows of the ranking below a short matrix, where the card has room. */
function drawMatrixTop(state) {
  const holder = document.getElementById("matrix-top"), {view, access, attack} = state;
  holder.innerHTML = "";
  if (attack < 0 || attacksOf(view, access).length > 4) return;
  const {rows, baseline} = defenseRanking(state);
  const top = rows.filter(row => !row.reference).slice(0, 3).concat(rows.filter(row => row.reference));
  if (top.length < 3) return;
  const scale = scaleOf(top.map(row => row.group));
  const columns = [
    {head: "rank", num: true, cell: row => (row.reference ? "" : formatRank(row.best, row.last))},
    {head: "defense", cell: row => (row.reference ? "no defense" : methodLink("defense", row.group.defense))},
    groupColumn("bar", row => row.group, scale, baseline ? () => baseline.lift : undefined),
    groupColumn("lift", row => row.group),
  ];
  holder.innerHTML = `<h3>Lowest against ${escapeHtml(titleOf("attack", attack))}${state.within === "100" ? "" : `, within ${escapeHtml(state.within)} points of accuracy`} <a class="small" href="#/defenses" data-keep>the whole ranking</a></h3>${tableHtml(columns, top, {label: "Start of the ranking", rowClass: row => (row.reference ? "reference" : "")})}`;
}

function drawAttackRanks({on}, redraw) {
  const controls = document.getElementById("attacks-controls"), holder = document.getElementById("attacks-table");
  const choices = views.filter(view => (view.attackRanks || []).length > 1);
  controls.innerHTML = choices.length ? selectHtml("on", "on", choices.map(view => [view.id, viewName(view)]), on.id) : "";
  controls.onchange = event => {
    changeChoices({on: event.target.value});
    redrawKeepingFocus(controls, `[name="on"]`, redraw);
  };
  const rows = (on.attackRanks || []).map(([g, best, last, reason], place) => ({group: groups[g], best, last, reason, place}));
  if (!rows.length) {
    holder.innerHTML = `<p class="muted">No attack was run on the undefended model here.</p>`;
    return;
  }
  const pick = row => row.group, scale = scaleOf(rows.map(pick)), column = kind => groupColumn(kind, pick, scale);
  const rank = row => (Number.isFinite(row.best) ? formatRank(row.best, row.last) : "–");
  const extra = (on.extra || []).map(([name, values]) => ({head: name, num: true, opt: true, cell: row => formatPercent(values[row.place], 1), value: row => values[row.place]}));
  const columns = [
    {head: "rank", num: true, cell: row => (row.reason ? `<span title="${escapeHtml(row.reason)}">${rank(row)}</span>` : rank(row)), value: rank},
    {head: "attack", cell: row => `${methodLink("attack", row.group.attack)} ${attacks[row.group.attack].floor ? `<span class="muted small">floor: searches nothing</span>` : ""} <span class="muted small">${settingHtml(row.group.attackLevel)}</span>`, value: row => attacks[row.group.attack].name},
    {head: "options", value: row => row.group.attackLevel},
    {head: "sees", opt: true, cell: row => escapeHtml(accesses[row.group.access] || row.group.access), value: row => row.group.access},
    column("bar"), column("lift"), column("low"), column("high"), ...extra,
    {head: "queries", num: true, opt: true, cell: row => formatCount(row.group.queries), value: row => row.group.queries},
    {head: "gradients", num: true, opt: true, cell: row => formatCount(row.group.gradients), value: row => row.group.gradients},
    column("seeds"), column("verdict"), column("id"),
  ];
  putTable(holder, {name: "mibench-attacks", label: "Attacks on undefended models", columns, rows, sources: () => sourcesOf(rows.map(pick)), after: on.paired === false ? `<p class="small muted note">These rows hold no values by target: differences between attacks are unpaired.</p>` : ""});
}

function drawWorstCases({view}) {
  const section = document.getElementById("worst");
  const rows = (view.worst || []).map(([defense, lift, liftLow, liftHigh, picked, accuracy, level, group]) => ({defense, lift, liftLow, liftHigh, picked, accuracy, level: level || "", group: groups[group], verdict: -1}));
  section.hidden = !rows.length;
  if (!rows.length) return;
  const scale = scaleOf(rows);
  const columns = [
    {head: "defense", cell: row => (row.defense === undefended ? "no defense" : methodLink("defense", row.defense)), value: row => defenses[row.defense].name},
    {head: "setting", cell: row => (row.group ? settingLink(row.group, row.level || (row.defense === undefended ? "undefended" : "default")) : escapeHtml(row.level)), value: row => row.level},
    {head: "accuracy", num: true, opt: true, cell: row => formatNumber(row.accuracy), value: row => row.accuracy},
    {head: "lift with its 95 % interval", bar: true, cell: row => intervalHtml(row, scale)},
    {head: "lift", num: true, cell: row => withUnit(formatNumber(row.lift, true), escapeHtml(view.unit)), value: row => row.lift},
    {head: "low", num: true, value: row => row.liftLow}, {head: "high", num: true, value: row => row.liftHigh},
    {head: "attacks picked", cell: row => row.picked.map(attack => methodLink("attack", attack)).join(", "), value: row => row.picked.map(attack => attacks[attack].name).join(" ")},
  ];
  putTable(document.getElementById("worst-table"), {name: "mibench-worst", label: "Worst cases", columns, rows, sources: () => unique(rows.flatMap(row => [`defense/${defenses[row.defense].name}`, ...row.picked.map(attack => `attack/${attacks[attack].name}`)])), before: `<p class="small muted note">${escapeHtml(viewName(view))}</p>`});
}

function drawPublished(content) {
  const holder = document.getElementById("published-table"), rows = content.published || [];
  document.getElementById("published").hidden = !rows.length;
  if (!rows.length) return;
  const amount = (value, std) => formatNumber(value) + (Number.isFinite(std) ? ` ± ${formatNumber(std)}` : "");
  const method = row => (attackByName.has(row.attack) ? methodLink("attack", attackByName.get(row.attack).index) : row.attack ? escapeHtml(row.attack) : `<span class="muted">the target itself</span>`);
  const words = row => [row.dataset, row.target, row.public ? `public ${row.public}` : "", row.resolution ? `${row.resolution} px` : ""].filter(Boolean).join(", ");
  const metric = row => [row.metric, row.variant, row.evaluator].filter(Boolean).join(" ").replace(/_/g, " ");
  const columns = [
    {head: "attack", cell: method, value: row => row.attack},
    {head: "on", cell: row => escapeHtml(words(row)), value: words},
    {head: "metric", opt: true, cell: row => escapeHtml(metric(row)), value: metric},
    {head: "published", num: true, cell: row => withUnit(amount(row.value, row.std), escapeHtml(row.unit)), value: row => row.value},
    {head: "ours", num: true, cell: row => (row.ours && groupById.has(row.ours.group) ? groupLink(groupById.get(row.ours.group), formatNumber(row.ours.value)) : "–"), value: row => row.ours?.value},
    {head: "how ours differs", opt: true, cell: row => `<span class="small">${escapeHtml(row.ours?.protocol ?? "")}</span>`, value: row => row.ours?.protocol ?? "", onlyCsv: true},
    {head: "source", opt: true, cell: row => `<span class="small">${row.source ? outsideLink(row.source, row.source_bib || row.source) : escapeHtml(row.source_bib)} ${escapeHtml(row.place || "")}</span>`, value: row => row.source_bib || row.source},
  ];
  putTable(holder, {name: "mibench-published", label: "Published figures and ours", columns: columns.filter(column => column.head !== "how ours differs" || rows.some(row => row.ours)), rows, sources: unique(rows.map(row => `attack/${row.attack}`))});
}
