// The note beside the pointer or the focus, and the dialog with the groups of one cell of the matrix.

const tip = document.getElementById("tip");

function showTip(html, box) {
  tip.innerHTML = html;
  tip.hidden = false;
  const size = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(innerWidth - size.width - 8, box.left + box.width / 2 - size.width / 2));
  const below = box.bottom + 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${below + size.height > innerHeight ? Math.max(8, box.top - size.height - 8) : below}px`;
}

function hideTip() {
  tip.hidden = true;
}

/** The difference of a group from the undefended victim, where a ranking of the view holds it. */
function differenceOf(view, group) {
  if (!view.differences) {
    view.differences = new Map();
    for (const attack of Object.keys(view.rankings || {}))
      for (const within of Object.keys(view.rankings[attack]))
        for (const [g, , , difference, low, high, word] of rankingOf(view, attack, within).rows) view.differences.set(g, {difference, low, high, word});
  }
  return view.differences.get(group.index);
}

/** "less by 0.38 [0.14, 0.61]", or that the difference could be chance. */
function differenceText({difference, low, high, word}) {
  if (word !== "less" && word !== "more") return "could be chance";
  const interval = word === "less" ? formatInterval(negative(high), negative(low)) : formatInterval(low, high);
  return `${word} by ${formatNumber(Math.abs(difference))} ${interval}`;
}

function negative(value) {
  return Number.isFinite(value) ? -value : value;
}

function differenceHtml(found) {
  if (!found) return "";
  if (found.word !== "less" && found.word !== "more") return `<span class="muted">could be chance</span>`;
  const [word, ...rest] = differenceText(found).split(" ");
  return `<b>${word}</b> ${rest.slice(0, 2).join(" ")} <span class="muted small">${rest.slice(2).join(" ")}</span>`;
}

function pairTitle(attack, defense) {
  return `${titleOf("attack", attack)} against ${defense === undefended ? "no defense" : titleOf("defense", defense)}`;
}

function cellTipHtml(view, attack, defense) {
  const list = cellOf(view, attack, defense), baseline = baselineOf(view, attack);
  const row = (group, name) => `<tr><td>${escapeHtml(name)}</td><td class="num opt">${formatNumber(group.accuracy)}</td><td class="num">${formatNumber(group.lift, true)}</td><td>${formatInterval(group.liftLow, group.liftHigh)}</td><td>${verdictHtml(group.verdict)}</td><td class="opt">${defense === undefended ? "" : differenceHtml(differenceOf(view, group))}</td></tr>`;
  const reference = defense !== undefended && baseline ? row({...baseline, index: -1}, "undefended") : "";
  return `<b>${escapeHtml(pairTitle(attack, defense))}</b><table><tr><th>setting</th><th class="opt">accuracy</th><th>lift${view.unit ? ` ${escapeHtml(view.unit)}` : ""}</th><th>95 %</th><th></th><th class="opt"></th></tr>${list.map(group => row(group, levelText(group) || "–")).join("")}${reference}</table>`;
}

function emptyTipHtml(attack, defense, empty) {
  const words = {vacuous: "Cannot matter: the defense changes nothing that this attacker sees.", withheld: "Withheld: the defense does not give this attacker what it needs.", failed: "Failed."};
  return `<b>${escapeHtml(pairTitle(attack, defense))}</b><br>${escapeHtml(empty ? words[empty.kind] || empty.kind : "Not measured.")} ${escapeHtml(empty ? textOf(empty.reason) : "")}`;
}

function groupTipHtml(group) {
  const lines = [
    `<b>${escapeHtml(pairTitle(group.attack, group.defense))}</b>`,
    escapeHtml([levelText(group), group.attackLevel].filter(Boolean).join("; ")),
    `accuracy ${formatNumber(group.accuracy)} ${Number.isFinite(group.accuracyLow) ? formatInterval(group.accuracyLow, group.accuracyHigh) : ""}`,
    `lift ${withUnit(formatNumber(group.lift, true), escapeHtml(unitOf(group)))} ${formatInterval(group.liftLow, group.liftHigh)} ${verdictHtml(group.verdict)}`,
  ];
  return lines.filter(Boolean).join("<br>");
}

/** Points of a figure say who they are when pointed at. */
function tipOnPoints(holder, more = () => "") {
  holder.onmouseover = event => {
    const point = event.target.closest("[data-group]");
    if (!point) return hideTip();
    const group = groups[Number(point.dataset.group)];
    showTip(groupTipHtml(group) + more(group), point.getBoundingClientRect());
  };
  holder.onmouseleave = hideTip;
}

/** The groups of attack x defense. The focus returns to the cell by itself when the dialog closes. */
function openCell(view, attack, defense) {
  const dialog = document.getElementById("dialog"), list = cellOf(view, attack, defense), pick = group => group;
  const baseline = baselineOf(view, attack), scale = scaleOf(list.concat(baseline || []));
  const column = (kind, reference) => groupColumn(kind, pick, scale, reference);
  const columns = [
    {head: "setting", cell: group => settingLink(group, levelText(group) || "undefended"), value: group => levelText(group)},
    column("accuracy"), column("bar", baseline && defense !== undefended ? () => baseline.lift : undefined), column("lift"), column("low"), column("high"), column("interval"),
    {head: "than undefended", opt: true, keep: true, cell: group => (defense === undefended ? "" : differenceHtml(differenceOf(view, group))), value: group => (differenceOf(view, group) ? differenceText(differenceOf(view, group)) : "")},
    column("verdict"), column("id"),
  ];
  dialog.innerHTML = `<h2 id="dialog-title">${escapeHtml(pairTitle(attack, defense))}</h2><p class="muted small">${escapeHtml(viewName(view))}.${view.paired === false ? " Old rows without values by target: differences are unpaired." : ""} ${methodLink("attack", attack)}${defense === undefended ? "" : ` · ${methodLink("defense", defense)}`}</p><div id="dialog-table"></div><p><button type="button" id="dialog-close">Close</button></p>`;
  putTable(document.getElementById("dialog-table"), {name: "mibench-cell", label: pairTitle(attack, defense), columns, rows: list, sources: sourcesOf(list)});
  dialog.onclick = event => {
    if (event.target === dialog || event.target.id === "dialog-close" || event.target.closest("a")) dialog.close();
  };
  dialog.showModal();
  document.getElementById("dialog-close").focus();
}
