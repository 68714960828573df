// Pages of methods, datasets and claims.

function missingHtml(name) {
  return `<h1>Nothing is measured under “${escapeHtml(name)}”</h1><p><a href="#/">Back to the overview</a></p>`;
}

/** Groups by view, the richest view first. */
function byView(list) {
  const blocks = new Map();
  for (const group of list) blocks.set(group.view, [...(blocks.get(group.view) || []), group]);
  return [...blocks].sort((a, b) => b[1].length - a[1].length || a[0] - b[0]);
}

/** One view of a method's page: its settings against the undefended model. */
function putMethodBlock(holder, kind, view, list) {
  const other = kind === "attack" ? "defense" : "attack";
  const rows = [...list].sort((a, b) => (a[other] === undefended && kind === "attack" ? -1 : 0) - (b[other] === undefended && kind === "attack" ? -1 : 0) || a[other] - b[other] || a.strength - b.strength || a.index - b.index);
  const reference = group => (view && group.defense !== undefended ? baselineOf(view, group.attack)?.lift : undefined);
  const pick = group => group, scale = scaleOf(rows, rows.map(reference)), column = name => groupColumn(name, pick, scale, name === "bar" ? reference : undefined);
  const columns = [
    {head: other, cell: group => (other === "defense" && group.defense === undefended ? "no defense" : methodLink(other, group[other])), value: group => (other === "attack" ? attacks : defenses)[group[other]].name},
    {head: "setting", cell: group => settingLink(group, [levelText(group), group.attackLevel].filter(Boolean).join("; ") || "numbers"), value: group => [group.level, group.attackLevel].filter(Boolean).join("; ")},
    column("accuracy"), column("bar"), column("lift"), column("low"), column("high"), column("verdict"), column("id"),
  ];
  putTable(holder, {name: `mibench-${kind}-${view ? view.id : "other"}`, label: view ? viewName(view) : "Other groups", columns, rows, sources: sourcesOf(rows)});
}

function putMethodBlocks(holder, kind, list) {
  byView(list).forEach(([index, own], place) => {
    const view = views[index];
    const block = document.createElement("details");
    block.open = place < 4;
    block.innerHTML = `<summary><b>${escapeHtml(view ? viewName(view) : "Not comparable with others")}</b> <span class="muted">${own.length}</span></summary><div></div>`;
    holder.append(block);
    const fill = () => { if (block.open && !block.lastChild.hasChildNodes()) putMethodBlock(block.lastChild, kind, view, own); };
    block.ontoggle = fill;
    fill();
  });
}

function paperHtml(paper) {
  if (!paper || !paper.title) return "";
  return `<p>${paper.url ? outsideLink(paper.url, paper.title) : escapeHtml(paper.title)}<br><span class="muted small">${escapeHtml([paper.authors, paper.venue, paper.year].filter(Boolean).join(", "))}</span></p>`;
}

function extremeHtml(words, index) {
  const group = groups[index];
  return group ? `<p>${escapeHtml(words)}: ${groupLink(group, `${pairTitle(group.attack, group.defense)} on ${datasets[group.dataset].title}`)}, lift ${withUnit(formatNumber(group.lift, true), escapeHtml(unitOf(group)))} ${verdictHtml(group.verdict)}</p>` : "";
}

function drawMethodPage(holder, kind, entry, content) {
  const name = `${kind}/${entry.name}`, told = content.methods[name] || {};
  const mine = groups.filter(group => group[kind] === entry.index && Number.isFinite(group.lift));
  const skipped = groups.filter(group => group[kind] === entry.index && !Number.isFinite(group.lift));
  const leaks = mine.filter(group => toneOf(group.verdict) === "leak").length;
  const side = kind === "defense" ? (entry.hooks ? `acts on ${entry.hooks}` : "") : entry.floor ? "a floor: searches nothing" : entry.family;
  const leak = verdicts.findIndex(verdict => verdict.tone === "leak");
  holder.innerHTML = crumbHtml(`${kind}s`, escapeHtml(entry.name))
    + `<h1>${escapeHtml(entry.title || entry.name)} <span class="muted">${escapeHtml(side)}</span></h1>`
    + `<p class="claim">${escapeHtml(told.summary || "")} ${mine.length ? `Measured in ${formatCount(mine.length)} settings; the verdict is <b>${escapeHtml(verdicts[leak]?.word ?? "leak")}</b> in ${formatCount(leaks)} of them.` : "Nothing is measured of it yet."}</p>`
    + `<div class="columns"><div>${told.equation ? `<pre tabindex="0" class="equation">${escapeHtml(told.equation)}</pre>` : ""}${extremeHtml(kind === "attack" ? "Its largest lift" : "The lowest lift against it", told.best)}${extremeHtml(kind === "attack" ? "Its smallest lift" : "The largest lift against it", told.worst)}<div id="method-blocks"></div>${skippedHtml(skipped)}</div>`
    + `<div><h3>Paper</h3>${paperHtml(told.paper)}${factsHtml([["attacker knows", escapeHtml(told.knows)], ["written from", escapeHtml(told.fidelity)], ["code", told.code ? outsideLink(told.code) : ""]])}${preHtml("BibTeX", referencesOf(content, [name]), "method-reference")}<h3>All its numbers</h3><p><a href="#/numbers?${kind}=${escapeHtml(encodeURIComponent(entry.name))}&amp;all=1">${formatCount(mine.reduce((sum, group) => sum + content.ofGroup[group.index].length, 0))} numbers in the table</a></p></div></div>`;
  putMethodBlocks(document.getElementById("method-blocks"), kind, mine);
  for (const box of holder.querySelectorAll(".code")) copyButton(box, box.textContent);
}

function skippedHtml(list) {
  const rows = [...list].sort((a, b) => a.dataset - b.dataset || a.attack - b.attack || a.defense - b.defense || a.index - b.index).map(group => `<li>${groupLink(group, pairTitle(group.attack, group.defense))} on ${escapeHtml(datasets[group.dataset].title)}: ${escapeHtml(group.status)}. ${escapeHtml(textOf(group.reason))}</li>`).join("");
  return rows ? `<details><summary>Not measured: ${list.length}</summary><ul class="small">${rows}</ul></details>` : "";
}

function countOf(count, noun) {
  return `${count} ${noun}${count === 1 ? "" : "s"}`;
}

function drawDatasetPage(holder, entry, content) {
  const told = content.datasetPages?.[entry.name] || {};
  const own = views.filter(view => view.dataset === entry.index);
  const list = groups.filter(group => group.dataset === entry.index && Number.isFinite(group.lift));
  holder.innerHTML = crumbHtml("datasets", escapeHtml(entry.name))
    + `<h1>${escapeHtml(entry.title)}</h1><p class="claim">${escapeHtml(told.summary || "")}</p>`
    + `<div class="columns"><div><h3>What may be compared</h3><ul class="plain">${own.filter(view => matrixViews.includes(view) || (view.attackRanks || []).length > 1).map(view => `<li><a href="#/?${matrixViews.includes(view) ? "view" : "on"}=${escapeHtml(encodeURIComponent(view.id))}">${escapeHtml([view.sees, view.under].filter(Boolean).join(", "))}</a> <span class="muted small">${countOf(view.attacks.length + (view.alone || []).length, "attack")}, ${countOf(view.defenses.filter(defense => defense !== undefended).length, "defense")}</span></li>`).join("")}</ul><h3>Attacks on undefended models</h3><div id="dataset-blocks"></div></div>`
    + `<div><h3>Data</h3>${factsHtml([["licence", escapeHtml(told.licence)], ["pictures", (told.mayShow ?? entry.mayShow) ? "may be shown" : "are measured, never shown"]])}${paperHtml(told.paper)}${preHtml("BibTeX", referencesOf(content, [`dataset/${entry.name}`]), "dataset-reference")}<h3>All its numbers</h3><p><a href="#/numbers?dataset=${escapeHtml(encodeURIComponent(entry.name))}&amp;all=1">${formatCount(list.reduce((sum, group) => sum + content.ofGroup[group.index].length, 0))} numbers in the table</a></p></div></div>`;
  putMethodBlocks(document.getElementById("dataset-blocks"), "defense", list.filter(group => group.defense === undefended));
  for (const box of holder.querySelectorAll(".code")) copyButton(box, box.textContent);
}

const CLAIM_ORDER = ["holds", "does not hold", "undecided", "not tested"];

function claimEffect(claim) {
  if (claim.shown) return claim.shown.replace(/-(?=[\d.])/g, "−");
  return Number.isFinite(claim.effect) ? `${withUnit(formatNumber(claim.effect, true), claim.unit)} ${formatInterval(claim.low, claim.high)}` : "–";
}

function drawClaims(holder, content) {
  const place = claim => CLAIM_ORDER.indexOf(claim.verdict);
  const rows = [...content.claims].sort((a, b) => place(a) - place(b) || (a.id < b.id ? -1 : 1));
  const columns = [
    {head: "claim", cell: claim => `<a href="#/claim/${escapeHtml(encodeURIComponent(claim.id))}">${escapeHtml(segmentsText(claim.text))}</a>`, value: claim => segmentsText(claim.text)},
    {head: "verdict", cell: claim => `<b>${escapeHtml(claim.verdict)}</b>`, value: claim => claim.verdict},
    {head: "effect", num: true, opt: true, cell: claim => escapeHtml(claimEffect(claim)), value: claim => claim.effect},
    {head: "low", num: true, value: claim => claim.low}, {head: "high", num: true, value: claim => claim.high}, {head: "unit", value: claim => claim.unit},
    {head: "targets", num: true, opt: true, cell: claim => formatCount(claim.n), value: claim => claim.n},
    {head: "seeds", num: true, opt: true, cell: claim => formatCount(claim.seeds), value: claim => claim.seeds},
    {head: "id", onlyCsv: true, value: claim => claim.id},
  ];
  const counts = CLAIM_ORDER.map(word => [word, rows.filter(claim => claim.verdict === word).length]).filter(([, count]) => count);
  holder.innerHTML = crumbHtml("claims") + `<h1>Claims, decided by rows</h1><p class="claim">Each sentence names two groups of runs, or one. Rows alone decide it. ${counts.map(([word, count]) => `<b>${escapeHtml(word)}</b> ${count}`).join(", ")}.</p><div id="claims-table"></div>`;
  putTable(document.getElementById("claims-table"), {name: "mibench-claims", label: "Claims", columns, rows, sources: () => sourcesOf(rows.flatMap(claim => (claim.groups || []).map(index => groups[index]).filter(Boolean)))});
}

function drawClaimPage(holder, claim, content) {
  const list = (claim.groups || []).map(index => groups[index]).filter(Boolean), scale = scaleOf(list), column = kind => groupColumn(kind, group => group, scale);
  const columns = [
    {head: "group", cell: group => groupLink(group, pairTitle(group.attack, group.defense)), value: group => pairTitle(group.attack, group.defense)},
    {head: "setting", cell: group => settingHtml([group.level, group.attackLevel].filter(Boolean).join("; ")), value: group => [group.level, group.attackLevel].filter(Boolean).join("; ")},
    {head: "on", cell: group => escapeHtml(group.view >= 0 ? viewName(views[group.view]) : datasets[group.dataset].title), value: group => datasets[group.dataset].name},
    column("bar"), column("lift"), column("low"), column("high"), column("verdict"), column("id"),
  ];
  holder.innerHTML = crumbHtml(`<a href="#/claims">claims</a>`, escapeHtml(claim.id)) + `<h1>${segmentsHtml(claim.text)}</h1><p class="claim"><b>${escapeHtml(claim.verdict)}</b>${claimEffect(claim) === "–" ? "" : `: ${escapeHtml(claimEffect(claim))}`}${Number.isFinite(claim.n) ? `, ${formatCount(claim.n)} targets, ${formatCount(claim.seeds)} seeds` : ""}.</p>${claim.reason ? `<p>${escapeHtml(claim.reason)}</p>` : ""}<div id="claim-table"></div>${preHtml("Source", content.bib[claim.source] || "", "claim-source")}`;
  if (list.length) putTable(document.getElementById("claim-table"), {name: `mibench-claim-${claim.id}`, label: "Groups of this claim", columns, rows: list, sources: sourcesOf(list)});
  else document.getElementById("claim-table").innerHTML = `<p class="muted">No row was measured for it.</p>`;
}
