// Files that a reader takes away: tables as CSV, LaTeX and BibTeX, figures as SVG. Each names the version and the rows.

const LATEX_ROWS = 200;  // a longer table fits no paper; the CSV file has all rows

function provenance() {
  return `mibench ${overview.version}, rows ${overview.rows}`;
}

function downloadText(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], {type: `${type};charset=utf-8`}));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

/** One CSV field. A leading = + - @ of a text is kept from being run as a formula by a spreadsheet. */
function csvField(value) {
  if (value === null || value === undefined) return "";
  if (typeof value === "number") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

function csvText(columns, rows) {
  const shown = columns.filter(column => column.value);
  const lines = [shown.map(column => csvField(column.head)), ...rows.map(row => shown.map(column => csvField(column.value(row))))];
  return `# ${provenance()}\n${lines.map(line => line.join(",")).join("\n")}\n`;
}

const LATEX = {"\\": "\\textbackslash{}", "{": "\\{", "}": "\\}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "–": "--", "−": "$-$", "×": "$\\times$", "’": "'", "<": "$<$", ">": "$>$", "\n": " "};

function latexField(value) {
  if (value === null || value === undefined || value === "") return "--";
  if (typeof value === "number") return `$${value}$`;
  return String(value).replace(/[\\{}&%$#_~^–−×’<>\n]/g, character => LATEX[character]);
}

/** A booktabs table; columns marked `onlyCsv` (ids, texts) stay out of it. */
function latexText(columns, rows) {
  const shown = columns.filter(column => column.value && !column.onlyCsv);
  const left = rows.length - LATEX_ROWS;
  const line = fields => `${fields.join(" & ")} \\\\`;
  return [
    `% ${provenance()}${left > 0 ? `; the first ${LATEX_ROWS} of ${rows.length} rows` : ""}`,
    "% \\usepackage{booktabs}",
    `\\begin{tabular}{${shown.map(column => (column.num ? "r" : "l")).join("")}}`,
    "\\toprule",
    line(shown.map(column => latexField(column.head))),
    "\\midrule",
    ...rows.slice(0, LATEX_ROWS).map(row => line(shown.map(column => latexField(column.value(row))))),
    "\\bottomrule",
    "\\end{tabular}",
    "",
  ].join("\n");
}

/** References of mibench and of all named entries ("attack/gmi", "dataset/lfw"), each once, by key. */
function bibText(content, names) {
  const keys = [...new Set(names.flatMap(name => content.bibOf[name] || []))].sort();
  return `% ${provenance()}\n${[content.self, ...keys.map(key => content.bib[key])].filter(Boolean).join("\n\n")}\n`;
}

/** The names whose papers belong to a table of groups. */
function sourcesOf(list) {
  return [...new Set(list.flatMap(group => [`attack/${attacks[group.attack].name}`, `defense/${defenses[group.defense].name}`, `dataset/${datasets[group.dataset].name}`]))];
}

/** Put download buttons into `holder`. `table()` returns {name, columns, rows, sources}; asked for at the click. */
function putDownloads(holder, table, label) {
  const bar = document.createElement("div");
  bar.className = "downloads";
  bar.setAttribute("role", "group");
  bar.setAttribute("aria-label", `Download ${label}`);
  bar.innerHTML = `<button type="button" data-kind="csv">CSV</button><button type="button" data-kind="tex">LaTeX</button><button type="button" data-kind="bib">BibTeX</button><span class="small" role="status"></span>`;
  bar.onclick = event => {
    const kind = event.target.dataset.kind;
    if (!kind) return;
    const {name, columns, rows, sources} = table();
    if (kind === "csv") downloadText(`${name}.csv`, csvText(columns, rows), "text/csv");
    else if (kind === "tex") downloadText(`${name}.tex`, latexText(columns, rows), "text/x-tex");
    else loadNumbers().then(content => downloadText(`${name}.bib`, bibText(content, sources), "text/x-bibtex"), error => { bar.lastChild.textContent = error.message; });
  };
  holder.append(bar);
}

/** A figure as a file of its own: variables of the style become colours, the paper becomes a rectangle. */
function svgText(svg, title) {
  const style = getComputedStyle(document.documentElement);
  const value = name => style.getPropertyValue(name).trim();
  const copy = svg.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const [, , width, height] = copy.getAttribute("viewBox").split(" ");
  copy.setAttribute("width", width);
  copy.setAttribute("height", height);
  copy.setAttribute("font-family", "Helvetica, Arial, sans-serif");
  for (const link of [...copy.querySelectorAll("a")]) link.replaceWith(...link.childNodes);  // addresses of this page mean nothing elsewhere
  const paper = document.createElementNS(SVG, "rect");
  for (const [name, text] of Object.entries({width, height, fill: "var(--card)"})) paper.setAttribute(name, text);
  copy.prepend(paper);
  const heading = document.createElementNS(SVG, "title");
  heading.textContent = `${title} (${provenance()})`;
  copy.prepend(heading);
  return new XMLSerializer().serializeToString(copy).replace(/var\((--[\w-]+)\)/g, (_, name) => value(name)) + "\n";
}

function putFigureDownload(holder, figure, name, title) {
  const button = document.createElement("button");
  button.type = "button";
  button.dataset.kind = "svg";
  button.textContent = "SVG";
  button.setAttribute("aria-label", `Download ${title} as SVG`);
  button.onclick = () => {
    const svg = figure();
    if (svg) downloadText(`${name}.svg`, svgText(svg, title), "image/svg+xml");
  };
  holder.append(button);
}
