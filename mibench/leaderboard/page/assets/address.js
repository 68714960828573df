// The state of the page lives in the address after '#': "#/plane?view=1f0c&within=5&pick=bido,mid". Nothing else is
// remembered, so that a copied address shows what its sender saw.

const SECTIONS = ["defenses", "plane", "curves", "attacks", "worst", "published", "numbers", "cite"];

/** Names of the overview's choices, and of the long table's. */
const CHOICES = ["view", "access", "within", "attack", "pick", "effort", "on"];
const FILTERS = ["dataset", "task", "sees", "attack", "defense", "metric", "verdict", "q", "all", "sort"];

/** `attack` means the table's filter under #/numbers and the ranking's attack elsewhere; the other one is renamed. */
function parameterName(name, inTable, path) {
  if (name !== "attack") return name;
  const tableAddress = path === "numbers";
  if (inTable) return tableAddress ? "attack" : "filter";
  return tableAddress ? "ranked" : "attack";
}

/** Read the address: {path: ["group", "1f0c"], choices, filters}. Values are text from a stranger. */
function readAddress() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parameters = new URLSearchParams(query || "");
  const parts = path.split("/").map(part => {
    try {
      return decodeURIComponent(part);
    } catch {
      return part;  // a broken escape such as %zz
    }
  });
  const pick = (names, inTable) => Object.fromEntries(names.map(name => [name, parameters.get(parameterName(name, inTable, parts[0])) || ""]));
  return {path: parts, choices: pick(CHOICES, false), filters: pick(FILTERS, true)};
}

function writeAddress(path, choices, filters) {
  const parameters = new URLSearchParams();
  for (const name of CHOICES) if (choices[name]) parameters.set(parameterName(name, false, path), choices[name]);
  for (const name of FILTERS) if (filters[name]) parameters.set(parameterName(name, true, path), filters[name]);
  const query = parameters.toString().replace(/%2C/g, ",");
  history.replaceState(null, "", `#/${path}${query ? `?${query}` : ""}`);
}

/** Change choices of the overview; the address follows without scrolling. */
function changeChoices(changes) {
  const {path, choices, filters} = readAddress();
  const section = SECTIONS.includes(path[0]) && path[0] !== "numbers" ? path[0] : "";
  writeAddress(section, {...choices, ...changes}, filters);
}

/** Change filters or the order of the long table. */
function changeFilters(changes) {
  const {choices, filters} = readAddress();
  writeAddress("numbers", choices, {...filters, ...changes});
}

/** What the overview shows: the address where it names something that exists, else the defaults. */
function currentChoices() {
  const {choices} = readAddress();
  const view = viewById.get(choices.view) || matrixViews[0] || views[0];
  if (!view) return null;
  const access = view.accesses.includes(choices.access) ? choices.access : "";
  const within = ["2", "5", "10", "100"].includes(choices.within) ? choices.within : "5";
  const attack = rankedAttack(view, access, choices.attack);
  const on = viewById.get(choices.on) || attackView(view);
  return {view, access, within, attack, pick: choices.pick, effort: choices.effort, on};
}

/** How much an attacker sees, most first: the default attack is one that sees most, since a weak attacker proves little. */
const ACCESS_ORDER = ["white_box", "gradients", "features", "scores", "labels"];

/** The attack whose ranking is shown: the asked one, else of those that see most and met the most defenses the strongest. */
function rankedAttack(view, access, asked) {
  const known = rankedAttacks(view, access);
  const wanted = attackByName.get(asked);
  return wanted && known.includes(wanted.index) ? wanted.index : known[0] ?? -1;
}

function rankedAttacks(view, access) {
  const size = attack => rankingOf(view, attack, "100").rows.length;
  const place = attack => {
    const at = ACCESS_ORDER.indexOf(accessOf(view, attack));
    return at < 0 ? ACCESS_ORDER.length : at;
  };
  return Object.keys(view.rankings || {}).map(Number)
    .filter(attack => !access || accessOf(view, attack) === access)
    .sort((a, b) => place(a) - place(b) || size(b) - size(a) || view.attacks.indexOf(a) - view.attacks.indexOf(b) || a - b);
}

/** The view whose undefended attacks are ranked: the matrix's own, or the richest one of its dataset. */
function attackView(view) {
  if ((view.attackRanks || []).length > 1) return view;
  const same = views.filter(other => other.dataset === view.dataset && (other.attackRanks || []).length > 1);
  return same.sort((a, b) => b.attackRanks.length - a.attackRanks.length || (a.id < b.id ? -1 : 1))[0] || view;
}
