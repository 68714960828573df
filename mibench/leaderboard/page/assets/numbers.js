// The long table of all numbers. Only a window of rows of one fixed height is in the page, so 20,000 rows cost what 40
// cost. Rows are places in the columns of page/numbers.js; filters and order are lists of such places.

const ROW_HEIGHT = 28;  // px, as in page.css
const OVERSCAN = 8;  // rows drawn above and below what is seen, so that the Tab key always finds a next link

const table = {shown: [], content: null};

const numberGroup = row => groups[table.content.numbers.group[row]];
const numberMetric = row => table.content.metrics[table.content.numbers.metric[row]];
const numberField = name => row => table.content.numbers[name]?.[row];
const taskOf = row => table.content.details.task?.[table.content.numbers.group[row]] ?? "";
const underOf = row => (numberGroup(row).view >= 0 ? views[numberGroup(row).view].under : table.content.details.setting?.[numberGroup(row).index] ?? "");

/** Columns on the screen: width in px, `sort` gives the value to compare. */
const NUMBER_COLUMNS = [
  {key: "attack", head: "attack", width: 160, text: row => titleOf("attack", numberGroup(row).attack), value: row => attacks[numberGroup(row).attack].name, cell: row => groupLink(numberGroup(row), titleOf("attack", numberGroup(row).attack))},
  {key: "options", head: "options", onlyCsv: true, value: row => numberGroup(row).attackLevel},
  {key: "defense", head: "defense", width: 130, text: row => (numberGroup(row).defense === undefended ? "none" : titleOf("defense", numberGroup(row).defense)), value: row => defenses[numberGroup(row).defense].name},
  {key: "setting", head: "setting", width: 112, text: row => numberGroup(row).level, value: row => numberGroup(row).level},
  {key: "dataset", head: "dataset", width: 92, text: row => datasets[numberGroup(row).dataset].title, value: row => datasets[numberGroup(row).dataset].name},
  {key: "task", head: "task", onlyCsv: true, value: taskOf},
  {key: "under", head: "under", onlyCsv: true, width: 140, text: underOf, value: underOf},
  {key: "metric", head: "metric", width: 150, text: row => withUnit(numberMetric(row).name, numberMetric(row).unit ? `(${numberMetric(row).unit})` : ""), value: row => numberMetric(row).name},
  {key: "value", head: "value", width: 62, num: true, value: numberField("value")},
  {key: "low", head: "value low", num: true, onlyCsv: true, value: numberField("low")},
  {key: "high", head: "value high", num: true, onlyCsv: true, value: numberField("high")},
  {key: "control", head: "control", width: 70, num: true, value: numberField("control")},
  {key: "null", head: "null", num: true, onlyCsv: true, value: numberField("null")},
  {key: "nullName", head: "null name", onlyCsv: true, value: numberField("nullName")},
  {key: "lift", head: "lift", width: 70, num: true, signed: true, value: numberField("lift")},
  {key: "liftLow", head: "low", shown: "95 %", width: 116, num: true, value: numberField("liftLow"), text: row => (Number.isFinite(numberField("liftLow")(row)) ? formatInterval(numberField("liftLow")(row), numberField("liftHigh")(row)) : "–")},
  {key: "liftHigh", head: "high", num: true, value: numberField("liftHigh"), hidden: true},
  {key: "verdict", head: "verdict", width: 128, value: row => verdicts[numberField("verdict")(row)]?.word ?? "", cell: row => verdictHtml(numberField("verdict")(row)), order: row => placeOfVerdict(row)},
  {key: "sees", head: "sees", width: 112, text: row => accesses[numberGroup(row).access] || numberGroup(row).access, value: row => numberGroup(row).access},
  {key: "n", head: "n", width: 56, num: true, value: numberField("n"), count: true},
  {key: "seeds", head: "seeds", width: 60, num: true, value: numberField("seeds"), count: true},
  {key: "accuracy", head: "accuracy", width: 80, num: true, value: row => numberGroup(row).accuracy},
  {key: "group", head: "group", onlyCsv: true, value: row => numberGroup(row).id},
];
const SCREEN_COLUMNS = NUMBER_COLUMNS.filter(column => column.width);

/** Place of a row's verdict, strongest evidence first; rows without one stand last. */
function placeOfVerdict(row) {
  const verdict = numberField("verdict")(row);
  return verdict === null || verdict === undefined || verdict < 0 ? verdicts.length : verdict;
}

/** Compare two values; unknown ones always stand last. Text by code unit, as on every machine. */
function compareValues(a, b, sign) {
  const missingA = a === null || a === undefined || a === "", missingB = b === null || b === undefined || b === "";
  if (missingA || missingB) return missingA - missingB;
  return a === b ? 0 : (a < b ? -1 : 1) * sign;
}

function sortRows(rows, sort) {
  const sign = sort.startsWith("-") ? -1 : 1, key = sort.replace(/^-/, "");
  const column = SCREEN_COLUMNS.find(one => one.key === key);
  const lift = numberField("lift"), id = row => numberGroup(row).id;
  const last = (a, b) => compareValues(lift(a), lift(b), -1) || compareValues(id(a), id(b), 1) || a - b;
  if (!column) return rows.sort((a, b) => placeOfVerdict(a) - placeOfVerdict(b) || last(a, b));
  const value = column.order || column.value;
  return rows.sort((a, b) => compareValues(value(a), value(b), sign) || last(a, b));
}

function filterRows(filters) {
  const {content} = table;
  const tests = [];
  const same = (name, value) => { if (filters[name]) tests.push(row => value(row) === filters[name]); };
  same("dataset", row => datasets[numberGroup(row).dataset].name);
  same("task", taskOf);
  same("sees", row => numberGroup(row).access);
  same("attack", row => attacks[numberGroup(row).attack].name);
  same("defense", row => defenses[numberGroup(row).defense].name);
  same("metric", row => numberMetric(row).name);
  same("verdict", row => verdicts[numberField("verdict")(row)]?.word ?? "");
  if (!filters.all && !filters.metric) tests.push(row => numberMetric(row).headline);
  const words = filters.q.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) {
    content.search ??= groups.map(group => [attacks[group.attack].name, titleOf("attack", group.attack), group.attackLevel, defenses[group.defense].name, titleOf("defense", group.defense), group.level, datasets[group.dataset].name, group.id].join(" ").toLowerCase());
    tests.push(row => { const text = `${content.search[content.numbers.group[row]]} ${numberMetric(row).name}`; return words.every(word => text.includes(word)); });
  }
  const rows = [];
  for (let row = 0; row < content.count; row++) if (tests.every(test => test(row))) rows.push(row);
  return rows;
}

function drawNumberControls(redraw) {
  const {content} = table, {filters} = readAddress(), holder = document.getElementById("numbers-controls");
  const sorted = list => unique(list).filter(Boolean).sort();
  const any = entries => [["", "any"], ...entries];
  const plain = list => any(sorted(list).map(value => [value, value]));
  holder.innerHTML = selectHtml("dataset", "dataset", any(datasets.map(one => [one.name, one.title])), filters.dataset)
    + selectHtml("task", "task", plain(content.details.task || []), filters.task)
    + selectHtml("sees", "sees", any(sorted(groups.map(group => group.access)).map(name => [name, accesses[name] || name])), filters.sees)
    + selectHtml("attack", "attack", any(attacks.map(one => [one.name, one.title])), filters.attack)
    + selectHtml("defense", "defense", any(defenses.map(one => [one.name, one.title])), filters.defense)
    + selectHtml("metric", "metric", plain(content.metrics.map(metric => metric.name)), filters.metric)
    + selectHtml("verdict", "verdict", any(verdicts.map(one => [one.word, `${one.mark} ${one.word}`])), filters.verdict)
    + `<label><input type="checkbox" name="all"${filters.all ? " checked" : ""}> all metrics</label><label>search <input type="search" name="q"></label>`;
  holder.querySelector('[name="q"]').value = filters.q;
  holder.oninput = event => {
    const {name, type, checked, value} = event.target;
    changeFilters({[name]: type === "checkbox" ? (checked ? "1" : "") : value});
    redraw();
  };
}

function drawNumberHead(holder) {
  const {sort} = readAddress().filters;
  const state = column => (sort.replace(/^-/, "") !== column.key ? "none" : sort.startsWith("-") ? "descending" : "ascending");
  holder.querySelector("thead").innerHTML = `<tr aria-rowindex="1">${SCREEN_COLUMNS.map(column => `<th scope="col" class="${column.num ? "num" : ""}" aria-sort="${state(column)}"><button type="button" data-sort="${column.key}">${escapeHtml(column.shown || column.head)}</button></th>`).join("")}</tr>`;
}

function numberRowHtml(row) {
  return SCREEN_COLUMNS.map(column => {
    const value = column.cell ? column.cell(row) : escapeHtml(column.text ? column.text(row) : column.count ? formatCount(column.value(row)) : formatNumber(column.value(row), column.signed));
    return `<td${column.num ? ' class="num"' : column.text ? ` title="${escapeHtml(column.text(row))}"` : ""}>${value}</td>`;
  }).join("");
}

/** Bring the rows around the scroll position into the page; rows that stay keep their node, and so the focus. */
function drawWindow(holder) {
  const scroller = holder.querySelector(".window"), body = holder.querySelector("tbody");
  const first = Math.max(0, Math.floor(scroller.scrollTop / ROW_HEIGHT) - OVERSCAN);
  const last = Math.min(table.shown.length, Math.ceil((scroller.scrollTop + scroller.clientHeight) / ROW_HEIGHT) + OVERSCAN);
  const kept = new Map([...body.querySelectorAll("tr[data-place]")].map(node => [Number(node.dataset.place), node]));
  const nodes = [spacer(first)];
  for (let place = first; place < last; place++) {
    let node = kept.get(place);
    if (!node) {
      node = document.createElement("tr");
      node.dataset.place = place;
      node.setAttribute("aria-rowindex", place + 2);
      node.innerHTML = numberRowHtml(table.shown[place]);
    }
    nodes.push(node);
  }
  nodes.push(spacer(table.shown.length - last));
  const focused = document.activeElement;
  body.replaceChildren(...nodes);
  if (focused !== document.activeElement && body.contains(focused)) focused.focus({preventScroll: true});
}

function spacer(rows) {
  const node = document.createElement("tr");
  node.className = "spacer";
  node.setAttribute("aria-hidden", "true");
  node.innerHTML = `<td colspan="${SCREEN_COLUMNS.length}" style="height:${rows * ROW_HEIGHT}px"></td>`;
  return node;
}

function refreshNumbers() {
  const {filters} = readAddress(), holder = document.getElementById("numbers-table");
  table.shown = sortRows(filterRows(filters), filters.sort);
  document.getElementById("numbers-count").textContent = table.shown.length ? `${formatCount(table.shown.length)} of ${formatCount(table.content.count)} numbers` : "Nothing measured fits.";
  holder.querySelector("table").setAttribute("aria-rowcount", table.shown.length + 1);
  drawNumberHead(holder);
  holder.querySelector("tbody").replaceChildren();
  holder.querySelector(".window").scrollTop = 0;
  drawWindow(holder);
}

function drawNumbers(content) {
  table.content = content;
  const holder = document.getElementById("numbers-table"), tools = document.getElementById("numbers-tools");
  tools.innerHTML = `<span role="status" id="numbers-count" class="muted small"></span>`;
  putDownloads(tools, () => ({name: "mibench-numbers", columns: NUMBER_COLUMNS, rows: table.shown, sources: sourcesOf(unique(table.shown.map(numberGroup)))}), "the shown numbers");
  holder.innerHTML = `<div class="window" tabindex="0" role="region" aria-label="All numbers, scrollable"><table class="rows long" style="width:${SCREEN_COLUMNS.reduce((sum, column) => sum + column.width, 0)}px"><colgroup>${SCREEN_COLUMNS.map(column => `<col style="width:${column.width}px">`).join("")}</colgroup><thead></thead><tbody></tbody></table></div>`;
  holder.querySelector(".window").onscroll = () => requestAnimationFrame(() => drawWindow(holder));
  holder.onclick = event => {
    const key = event.target.dataset.sort;
    if (!key) return;
    const {sort} = readAddress().filters, numeric = SCREEN_COLUMNS.find(column => column.key === key).num;
    const [first, second] = numeric ? [`-${key}`, key] : [key, `-${key}`];  // numbers start with the largest
    changeFilters({sort: sort === first ? second : sort === second ? "" : first});
    refreshNumbers();
    holder.querySelector(`[data-sort="${key}"]`).focus();
  };
  drawNumberControls(refreshNumbers);
  refreshNumbers();
  drawSetAside(content);
}

/** Files of results that could not be read, with the reason. */
function drawSetAside(content) {
  const rows = content.setAside || [];
  document.getElementById("set-aside").innerHTML = rows.length ? `<details><summary>${rows.length} files were set aside</summary><ul>${rows.map(([file, reason]) => `<li>${escapeHtml(file)}: ${escapeHtml(reason)}</li>`).join("")}</ul></details>` : "";
}
