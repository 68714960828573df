// The first screen: counts, pictures and findings; at the end the words of the page and how to cite it.

function drawCounts() {
  const {counts} = overview;
  const names = [["datasets", "datasets"], ["attacks", "attacks"], ["defenses", "defenses"], ["runs", "runs"], ["numbers", "numbers beside their control"]];
  document.getElementById("counts").innerHTML = names.filter(([key]) => counts[key] !== undefined).map(([key, words]) => `<span><b>${formatCount(counts[key])}</b> ${words}</span>`).join(" ");
  const local = document.getElementById("local");
  local.hidden = !overview.local;
  local.textContent = overview.local ? "These are the rows of this machine, pictures of your own data included. Do not publish this page." : "";
}

/** Pictures row by row, so that the eye compares private, recovered and control column by column. */
function drawStrips() {
  document.getElementById("strips").innerHTML = (overview.strips || []).map(strip => `<figure class="strip"><figcaption>${segmentsHtml(strip.caption)}</figcaption>${strip.rows.map(row => `<div class="row${row.recovered ? " recovered" : ""}"><span>${escapeHtml(row.label)}</span>${/^data:image\/|^(?!\w+:)/.test(row.image) ? `<img src="${escapeHtml(row.image)}" alt="${escapeHtml(row.alt)}">` : ""}</div>`).join("")}</figure>`).join("");
}

function drawFindings() {
  document.getElementById("findings").innerHTML = (overview.findings || []).map(finding => `<li><span class="big">${escapeHtml(finding.number)}<small>${escapeHtml(finding.unit)}</small></span><p>${segmentsHtml(finding.text)}</p></li>`).join("");
}

function drawWords() {
  const fixed = [
    ["lift", "How far the value lies on the leaking side of its control."],
    ["control", "The same attack where there is nothing to leak: a victim that never saw these people, another client’s update, or a guess without the model."],
  ];
  const after = [
    ["cannot matter", "The defense changes nothing that this attacker sees. Such a cell is refused, not measured as zero."],
    ["shared ranks", "“2–6” says: one row is clearly better, and of six rows none that shares the rank is clearly better or worse than this one."],
    ["share on the front", "In how many of the random draws of targets no other setting had both a higher accuracy and a lower lift."],
  ];
  const entry = ([word, meaning]) => `<dt>${escapeHtml(word)}</dt><dd>${escapeHtml(meaning)}</dd>`;
  document.getElementById("words").innerHTML = fixed.map(entry).join("") + verdicts.map((verdict, index) => `<dt>${verdictHtml(index)}</dt><dd>${escapeHtml(verdict.meaning)}</dd>`).join("") + after.map(entry).join("");
}

/** The reference of the software lies in page/numbers.js; until it is there, version and rows are named. */
function drawSoftware(content, message = "") {
  document.getElementById("software").innerHTML = `<h3>Cite</h3>${content ? `<pre>${escapeHtml(content.self)}</pre>` : `<p class="small">${escapeHtml(message)}</p>`}<p class="small muted">mibench ${escapeHtml(overview.version)}, rows SHA-256 ${escapeHtml(overview.rows)}</p><p class="small">Cite also the papers of the methods that you name: every table has a BibTeX button. What papers claim and what was measured here: <a href="#/claims">claims</a>.</p>`;
}
