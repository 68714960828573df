// The data of the page. The overview lies in the page itself; everything else lies in page/numbers.js, a script that
// is inserted when it is needed, because a page opened from file:// may not fetch.

const overview = JSON.parse(document.getElementById("overview-json").textContent);
const {datasets, attacks, defenses, views, verdicts, accesses} = overview;

/**
 * One value per row of a column that is stored as it is shortest: values; codes of values ("d", "c"); runs of equal
 * values ("r": value, times, ...), of codes where there is "d"; a list of codes per row ("d", "l").
 */
function unpackColumn(column) {
  if (Array.isArray(column)) return column;
  const named = code => (column.d ? column.d[code] : code);
  if (column.c) return column.c.map(named);
  if (column.l) return column.l.map(list => list.map(named));
  const values = [];
  for (let place = 0; place < column.r.length; place += 2) {
    const value = named(column.r[place]);
    for (let times = column.r[place + 1]; times > 0; times--) values.push(value);
  }
  return values;
}

function unpackColumns(table) {
  return Object.fromEntries(Object.keys(table || {}).map(name => [name, unpackColumn(table[name])]));
}

const groupColumns = unpackColumns(overview.groups);

/** One object per group of cells; `index` is its place in every column. */
const groups = (groupColumns.id || []).map((_, index) => {
  const group = {index};
  for (const name in groupColumns) group[name] = groupColumns[name][index];
  return group;
});

const groupById = new Map(groups.map(group => [group.id, group]));
const viewById = new Map(views.map((view, index) => [view.id, Object.assign(view, {index})]));
const attackByName = new Map(attacks.map((attack, index) => [attack.name, Object.assign(attack, {index})]));
const defenseByName = new Map(defenses.map((defense, index) => [defense.name, Object.assign(defense, {index})]));
const datasetByName = new Map(datasets.map((dataset, index) => [dataset.name, Object.assign(dataset, {index})]));
const undefended = defenseByName.has("none") ? defenseByName.get("none").index : -1;

/** Find a group by its id or by the beginning of it, so that short links work. */
function findGroup(id) {
  return groupById.get(id) || (id.length >= 6 ? groups.find(group => group.id.startsWith(id)) : undefined);
}

/** The groups of attack x defense in a view, from the weakest to the strongest setting; undefined if not measured. */
function cellOf(view, attack, defense) {
  view.cellMap ??= new Map(view.cells.map(([a, d, list]) => [`${a}|${d}`, list.map(index => groups[index])]));
  return view.cellMap.get(`${attack}|${defense}`);
}

/** Why attack x defense holds no number: {kind, reason}; undefined means not measured. */
function emptyOf(view, attack, defense) {
  view.emptyMap ??= new Map((view.empty || []).map(([a, d, kind, reason]) => [`${a}|${d}`, {kind, reason}]));
  return view.emptyMap.get(`${attack}|${defense}`);
}

/** The undefended group of an attack in a view. */
function baselineOf(view, attack) {
  const cell = cellOf(view, attack, undefended);
  return cell && cell[cell.length - 1];
}

/** The attacks of a view in drawing order, restricted to one access. */
function attacksOf(view, access) {
  return view.attacks.filter(attack => !access || accessOf(view, attack) === access);
}

function accessOf(view, attack) {
  for (const [a, , list] of view.cells) if (a === attack) return groups[list[0]].access;
  return "";
}

/** Views with a matrix: attacks met defenses. Small ones are offered only where a dataset and sight has no larger one. */
const matrixViews = views.filter(hasMatrix).filter((view, _, all) => view.cells.length >= 6 || !all.some(other => other.cells.length >= 6 && other.dataset === view.dataset && other.sees === view.sees && other.task === view.task));

function hasMatrix(view) {
  return view.attacks.length > 0 && view.defenses.some(defense => defense !== undefended);
}

const NO_RANKING = {rows: [], outside: []};

/** The ranking of an attack's defenses within a loss of accuracy; the same ranking is stored once and then named. */
function rankingOf(view, attack, within) {
  const stored = view.rankings?.[attack] || {};
  let found = stored[within];
  while (typeof found === "string") found = stored[found];
  return found || NO_RANKING;
}

/** What page/numbers.js holds, once it is there; null before. */
let full = null;
let fullPromise = null;

/** Insert page/numbers.js once. Resolves to its content, rejects with a sentence for the reader. */
function loadNumbers() {
  fullPromise ??= new Promise((resolve, reject) => {
    window.mibench_receive = content => {
      if (content.rows && content.rows !== overview.rows) {
        reject(new Error(`page/numbers.js belongs to rows ${content.rows}, this page to rows ${overview.rows}. Build both again, or take both from one place.`));
        return;
      }
      full = prepareNumbers(content);
      resolve(full);
    };
    const script = document.createElement("script");
    script.src = "page/numbers.js";
    script.onerror = () => reject(new Error("The file page/numbers.js is missing beside this page. It holds every number, command and reference. Put it there, or build the page again; the overview works without it."));
    script.onload = () => full || reject(new Error("The file page/numbers.js is damaged. Build the page again."));
    document.head.append(script);
  });
  return fullPromise;
}

function prepareNumbers(content) {
  const numbers = unpackColumns(content.numbers);
  const {config, ...perGroup} = content.groups;
  const details = unpackColumns(perGroup);
  const count = (numbers.group || []).length;
  const ofGroup = groups.map(() => []);
  for (let row = 0; row < count; row++) ofGroup[numbers.group[row]]?.push(row);
  return {...content, numbers, details, config: unpackColumns(config), count, ofGroup, texts: content.texts || [], methods: content.methods || {}, bib: content.bib || {}, bibOf: content.bibOf || {}, claims: content.claims || []};
}

/** A text that is stored as itself or as its place in `texts`. */
function textOf(value) {
  if (typeof value === "number") return full ? full.texts[value] ?? "" : "";
  return value ?? "";
}
