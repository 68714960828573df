// The page of one group of cells: what it shows in a sentence, its picture, its neighbours, every number, what was run,
// how to run and cite it.

function crumbHtml(...parts) {
  return `<p class="crumb"><a href="#/">mibench</a> ${parts.map(part => `/ ${part}`).join(" ")}</p>`;
}

/** Pairs of a word and HTML as a list; empty ones are left out. */
function factsHtml(pairs) {
  return `<dl class="facts">${pairs.filter(([, html]) => html).map(([word, html]) => `<dt>${escapeHtml(word)}</dt><dd>${html}</dd>`).join("")}</dl>`;
}

/** The same attack in the same view: the undefended model, then every setting of the defense, weak to strong. */
function neighboursOf(group) {
  const view = views[group.view];
  const own = view && cellOf(view, group.attack, group.defense);
  const others = groups.filter(other => other.view === group.view && other.attack === group.attack && other.defense === group.defense && Number.isFinite(other.lift)).sort((a, b) => a.strength - b.strength || a.index - b.index);
  const baseline = view && baselineOf(view, group.attack);
  const list = group.defense === undefended ? others : [baseline, ...(own && own.includes(group) ? own : others)];
  return unique(list.filter(Boolean).concat(list.includes(group) || !Number.isFinite(group.lift) ? [] : [group]));
}

function putNeighbours(holder, group) {
  const rows = neighboursOf(group);
  if (!rows.length) return;
  const baseline = rows.find(other => other.defense === undefended), scale = scaleOf(rows), pick = other => other;
  const column = kind => groupColumn(kind, pick, scale, kind === "bar" && baseline && group.defense !== undefended ? () => baseline.lift : undefined);
  const name = other => [other.defense === undefended ? "no defense" : levelText(other), other.attackLevel].filter(Boolean).join("; ");
  const columns = [
    {head: "setting", cell: other => (other === group ? `<b aria-current="true">${escapeHtml(name(other))}</b>` : settingLink(other, name(other))), value: name},
    column("accuracy"), column("bar"), column("lift"), column("low"), column("high"), column("verdict"), column("id"),
  ];
  holder.innerHTML = `<h3>Beside its neighbours</h3><div></div>`;
  putTable(holder.lastChild, {name: `mibench-neighbours-${group.id.slice(0, 8)}`, label: "Neighbours of this group", columns, rows, sources: sourcesOf(rows), rowClass: other => (other === group ? "reference" : ""), after: views[group.view]?.paired === false ? `<p class="small muted note">These rows hold no values by target: differences between them are unpaired.</p>` : ""});
}

function putGroupNumbers(holder, group, content) {
  const field = name => row => content.numbers[name]?.[row];
  const metric = row => content.metrics[field("metric")(row)];
  const rows = [...content.ofGroup[group.index]].sort((a, b) => (metric(b).headline ? 1 : 0) - (metric(a).headline ? 1 : 0) || a - b);
  const amount = (name, signed) => ({head: name, num: true, cell: row => formatNumber(field(name)(row), signed), value: field(name)});
  const columns = [
    {head: "metric", cell: row => escapeHtml(metric(row).name) + (metric(row).unit ? ` <span class="muted">${escapeHtml(metric(row).unit)}</span>` : ""), value: row => metric(row).name},
    {head: "unit", value: row => metric(row).unit, onlyCsv: true},
    amount("value"), {head: "value low", num: true, value: field("low"), onlyCsv: true}, {head: "value high", num: true, value: field("high"), onlyCsv: true}, {...amount("control"), opt: true},
    {head: "null", num: true, opt: true, cell: row => `<span title="${escapeHtml(field("nullName")(row) ?? "")}">${formatNumber(field("null")(row))}</span>`, value: field("null")},
    amount("lift", true),
    {head: "95 % interval", opt: true, keep: true, cell: row => (Number.isFinite(field("liftLow")(row)) ? formatInterval(field("liftLow")(row), field("liftHigh")(row)) : "–")},
    {head: "low", num: true, value: field("liftLow")}, {head: "high", num: true, value: field("liftHigh")},
    {head: "verdict", cell: row => verdictHtml(field("verdict")(row)), value: row => verdicts[field("verdict")(row)]?.word ?? ""},
    {head: "n", num: true, opt: true, cell: row => formatCount(field("n")(row)), value: field("n")},
  ];
  const hasNull = rows.some(row => Number.isFinite(field("null")(row)));
  holder.innerHTML = `<h3>Every number of this group</h3><div></div>`;
  if (rows.length) putTable(holder.lastChild, {name: `mibench-${group.id.slice(0, 8)}`, label: "Every number of this group", columns: columns.filter(column => hasNull || column.head !== "null"), rows, sources: sourcesOf([group])});
  else holder.lastChild.innerHTML = `<p class="muted">Nothing was measured. ${escapeHtml(textOf(group.reason))}</p>`;
}

function pictureHtml(path, why) {
  const known = path && (/^data:image\//.test(path) || !/^[a-z][\w+.-]*:/i.test(path));
  return known ? `<figure class="sheet"><img src="${escapeHtml(path)}" alt="Private inputs, reconstructions and control of this group"><figcaption class="small muted">Private (in attacks on classes: the nearest private), recovered, control.</figcaption></figure>` : why ? `<p class="small muted">No picture: ${escapeHtml(why)}</p>` : "";
}

/** BibTeX of one row: what it says, of which rows, where it stands. */
function rowReference(group) {
  const headline = `lift ${formatNumber(group.lift, true).replace("−", "-")} ${formatInterval(group.liftLow, group.liftHigh).replace(/−/g, "-")}`;
  const title = `${pairTitle(group.attack, group.defense)}${group.level ? ` (${group.level})` : ""} on ${datasets[group.dataset].title}: ${headline}`;
  const plain = text => latexField(text).replace(/[{}]/g, character => (character === "{" ? "{" : "}"));
  return `@misc{mibench_${group.id.slice(0, 12)},\n  title        = {{${plain(title)}}},\n  author       = {{mibench}},\n  howpublished = {mibench ${overview.version}, rows ${overview.rows}, group ${group.id}},\n  note         = {\\#/group/${group.id}}\n}`;
}

function referencesOf(content, names) {
  return unique(names.flatMap(name => content.bibOf[name] || [])).map(key => content.bib[key]).filter(Boolean).join("\n\n");
}

function copyButton(holder, text) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Copy";
  button.onclick = () => navigator.clipboard?.writeText(text).then(() => { button.textContent = "Copied"; }, () => {});
  holder.append(button);
}

function preHtml(title, text, id) {
  return text ? `<h3>${escapeHtml(title)}</h3><div class="code" id="${id}"><pre tabindex="0">${escapeHtml(text)}</pre></div>` : "";
}

function groupFacts(group, detail) {
  const [seconds, training, times, memory] = detail("cost") || [];
  const accuracy = Number.isFinite(group.accuracy) ? `${formatNumber(group.accuracy)} ${Number.isFinite(group.accuracyLow) ? formatInterval(group.accuracyLow, group.accuracyHigh) : ""}` : "not measured";
  const text = name => escapeHtml(textOf(detail(name)));
  return factsHtml([
    ["attacker sees", escapeHtml(accesses[group.access] || group.access)], ["knows", text("knows")], ["task", text("task")],
    ["setting", text("setting")], ["target", text("target")], ["budget", text("budget")],
    ["model’s accuracy", accuracy], ["attack’s options", escapeHtml(group.attackLevel)], ["adaptive", group.adaptive ? "the attacker knows the defense" : ""],
    ["effort", `${formatCount(group.queries)} queries, ${formatCount(group.gradients)} gradients, ${formatSeconds(seconds)}${text("device") ? ` on ${text("device")}` : ""}`],
    ["training", Number.isFinite(training) ? `${formatSeconds(training)}${Number.isFinite(times) ? `, ${formatNumber(times)} × the undefended model’s time` : ""}` : ""],
    ["memory", Number.isFinite(memory) ? `${formatNumber(memory)} MB` : ""],
    ["attack from", text("fidelity")], ["defense from", text("defenseFidelity")], ["changed since", text("changed")],
    ["seeds", `${formatCount(group.seeds)}; ${formatCount(group.n)} values`], ["written by", [text("mibenchVersion") && `mibench ${text("mibenchVersion")}`, text("commit") && `commit ${text("commit").slice(0, 12)}`].filter(Boolean).join(", ")],
  ]);
}

/** A block of the configuration with one entry a line. */
function readableJson(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}

function drawGroupPage(holder, group, content) {
  const detail = name => content.details[name]?.[group.index];
  const cells = (detail("cells") || []).map(([id, seed, status, reason]) => `<li><code>${escapeHtml(id)}</code> seed ${escapeHtml(seed)}${status === "ok" ? "" : `: ${escapeHtml(status)}. ${escapeHtml(textOf(reason))}`}</li>`).join("");
  const notes = (detail("notes") || []).map(note => `<li>${escapeHtml(textOf(note))}</li>`).join("");
  const config = Object.entries(content.config).map(([name, column]) => [name, column[group.index]]).filter(([, place]) => place >= 0).map(([name, place]) => `<details><summary>${escapeHtml(name)}</summary><pre tabindex="0">${escapeHtml(readableJson(textOf(place)))}</pre></details>`).join("");
  const guarantee = textOf(detail("guarantee")), command = [detail("command") ?? []].flat().join(" ");
  const papers = referencesOf(content, [`attack/${attacks[group.attack].name}`, `defense/${defenses[group.defense].name}`, `dataset/${datasets[group.dataset].name}`]);
  holder.innerHTML = crumbHtml(`<a href="#/dataset/${escapeHtml(encodeURIComponent(datasets[group.dataset].name))}">${escapeHtml(datasets[group.dataset].title)}</a>`, escapeHtml(views[group.view]?.sees ?? ""), escapeHtml(group.id.slice(0, 8)))
    + `<h1>${escapeHtml(pairTitle(group.attack, group.defense))} <span class="muted">on ${escapeHtml(datasets[group.dataset].title)}${levelText(group) ? `, ${escapeHtml(levelText(group))}` : ""}</span></h1>`
    + `<p class="claim">${segmentsHtml(detail("claim") || [])} ${verdictHtml(group.verdict)}</p>${group.confirmed ? `<p class="small muted">${escapeHtml(group.confirmed)}</p>` : ""}`
    + `<div class="columns"><div>${pictureHtml(textOf(detail("picture")), textOf(detail("pictureWhy")))}<div id="group-neighbours"></div><div id="group-numbers"></div>${guarantee ? `<h3>What is guaranteed</h3><p>${escapeHtml(guarantee)} <span class="muted">A guarantee bounds what any attack can get; the numbers above are what these attacks got.</span></p>` : ""}</div>`
    + `<div><h3>What was run</h3>${groupFacts(group, detail)}${notes ? `<ul class="small">${notes}</ul>` : ""}${preHtml("Run it again", command, "group-command")}<h3>Methods</h3><p>${methodLink("attack", group.attack)}${group.defense === undefended ? "" : ` · ${methodLink("defense", group.defense)}`}</p>${preHtml("Cite this row", rowReference(group), "group-reference")}${preHtml("Papers", papers, "group-papers")}${cells ? `<h3>Cells</h3><ul class="small">${cells}</ul>` : ""}${config ? `<h3>Configuration</h3>${config}` : ""}</div></div>`;
  putNeighbours(document.getElementById("group-neighbours"), group);
  putGroupNumbers(document.getElementById("group-numbers"), group, content);
  for (const box of holder.querySelectorAll(".code")) copyButton(box, box.textContent);
}
