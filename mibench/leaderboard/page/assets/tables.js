// Tables: one list of columns gives both what is seen and what is downloaded.
// A column is {head, tail, num, opt, bar, keep, cell: row => HTML, value: row => number or text, onlyCsv}.
// Without `cell` it is downloaded only, without `value` it is seen only; `opt` and the `tail` of a head are left out on
// a telephone; `keep` breaks no line.

function tableHtml(columns, rows, {rowClass = () => "", label = ""} = {}) {
  const shown = columns.filter(column => column.cell);
  const names = column => [column.num && "num", column.opt && "opt", column.bar && "bar", column.keep && "keep"].filter(Boolean).join(" ");
  const head = shown.map(column => `<th scope="col" class="${names(column)}"${column.title ? ` title="${escapeHtml(column.title)}"` : ""}>${escapeHtml(column.head)}${column.tail ? `<span class="tail">${escapeHtml(column.tail)}</span>` : ""}</th>`).join("");
  const body = rows.map(row => `<tr class="${rowClass(row)}">${shown.map(column => `<td class="${names(column)}">${column.cell(row)}</td>`).join("")}</tr>`).join("");
  return `<div class="wide" tabindex="0" role="region" aria-label="${escapeHtml(label)}"><table class="rows"><thead><tr>${head}</tr></thead><tbody>${body}</tbody></table></div>`;
}

/** Draw a table with its downloads into `holder`. */
function putTable(holder, {name, label, columns, rows, sources, rowClass, before = "", after = ""}) {
  holder.innerHTML = before + tableHtml(columns, rows, {rowClass, label}) + after;
  putDownloads(holder, () => ({name, columns, rows, sources: typeof sources === "function" ? sources() : sources}), label);
}

/** A scale that holds every interval of the groups, zero and further values. */
function scaleOf(list, more = []) {
  const values = list.flatMap(group => [group.lift, group.liftLow, group.liftHigh]).concat(more).filter(value => Number.isFinite(value));
  const low = Math.min(0, ...values), high = Math.max(0, ...values);
  const margin = (high - low || 1) * 0.04;
  return [low - margin, high + margin];
}

/** Lift with its interval as a picture in a table cell; in per cent of the width, so that nothing is measured. */
function intervalHtml(row, [low, high], reference) {
  const at = value => `${((value - low) / (high - low) * 100).toFixed(2)}%`;
  const tone = toneOf(row.verdict);
  const parts = [`<line class="zero" x1="${at(0)}" x2="${at(0)}" y1="0" y2="22"/>`];
  if (Number.isFinite(reference)) parts.push(`<line class="reference" x1="${at(reference)}" x2="${at(reference)}" y1="-4" y2="26"/>`);
  if (Number.isFinite(row.liftLow)) parts.push(`<line class="reach" x1="${at(row.liftLow)}" x2="${at(row.liftHigh)}" y1="11" y2="11"/>`);
  if (Number.isFinite(row.lift)) parts.push(`<circle cx="${at(row.lift)}" cy="11" r="4.5"/>`);
  return `<svg class="interval ${escapeHtml(tone)}" role="img" aria-label="lift ${formatNumber(row.lift, true)} ${formatInterval(row.liftLow, row.liftHigh)}">${parts.join("")}</svg>`;
}

/** Columns that many tables of groups share. `pick` finds the group of a row, `scale` is asked once per table. */
function groupColumn(kind, pick, scale, reference) {
  const unit = row => unitOf(pick(row));
  return {
    accuracy: {head: "accuracy", num: true, opt: true, cell: row => formatNumber(pick(row).accuracy), value: row => pick(row).accuracy, title: "accuracy of the defended model on test data"},
    bar: {head: "lift with 95 % interval", tail: reference ? "; dashed: undefended" : "", bar: true, cell: row => intervalHtml(pick(row), scale, reference ? reference(row) : undefined)},
    lift: {head: "lift", num: true, cell: row => liftLink(pick(row), unit(row)), value: row => pick(row).lift},
    low: {head: "low", num: true, value: row => pick(row).liftLow},
    high: {head: "high", num: true, value: row => pick(row).liftHigh},
    interval: {head: "95 % interval", opt: true, keep: true, cell: row => `<span class="muted">${formatInterval(pick(row).liftLow, pick(row).liftHigh)}</span>`},
    control: {head: "control", num: true, opt: true, cell: row => formatNumber(pick(row).control), value: row => pick(row).control},
    verdict: {head: "verdict", opt: true, keep: true, cell: row => verdictHtml(pick(row).verdict), value: row => verdicts[pick(row).verdict]?.word ?? ""},
    seeds: {head: "seeds", num: true, opt: true, cell: row => formatCount(pick(row).seeds), value: row => pick(row).seeds},
    id: {head: "group", onlyCsv: true, value: row => pick(row).id},
  }[kind];
}

/** The lift leads to the page of its group, in every table alike. */
function liftLink(group, unit) {
  const text = withUnit(formatNumber(group.lift, true), unit);
  return `<a class="quiet" href="#/group/${escapeHtml(encodeURIComponent(group.id))}" aria-label="${escapeHtml(`lift ${text}: all numbers of ${pairTitle(group.attack, group.defense)} ${group.level}`)}">${escapeHtml(text)}</a>`;
}

/** The unit of a group's headline number, as its view says. */
function unitOf(group) {
  return group && group.view >= 0 && views[group.view] ? views[group.view].unit : "";
}
