// Routes and the order of drawing. The first view needs the overview alone; page/numbers.js comes when a reader nears
// the long table or opens a page of a group, a method, a dataset or a claim.

const DETAIL_PAGES = {
  group: ([id], content, holder) => {
    const group = findGroup(id || "");
    return group ? [drawGroupPage(holder, group, content), pairTitle(group.attack, group.defense)][1] : null;
  },
  method: ([kind, name], content, holder) => {
    const entry = kind === "attack" ? attackByName.get(name) : kind === "defense" ? defenseByName.get(name) : null;
    return entry ? [drawMethodPage(holder, kind, entry, content), entry.title][1] : null;
  },
  dataset: ([name], content, holder) => {
    const entry = datasetByName.get(name);
    return entry ? [drawDatasetPage(holder, entry, content), entry.title][1] : null;
  },
  claim: ([id], content, holder) => {
    const claim = content.claims.find(one => one.id === id);
    return claim ? [drawClaimPage(holder, claim, content), segmentsText(claim.text)][1] : null;
  },
  claims: (_, content, holder) => [drawClaims(holder, content), "claims"][1],
};

const TITLE = document.title;

function drawOverview() {
  const state = currentChoices();
  if (!state) {
    document.getElementById("matrix").innerHTML = `<p class="muted">No row is measured yet.</p>`;
    return;
  }
  drawViewControls(document.getElementById("matrix-controls"), state.view, state.access, drawOverview);
  drawMatrix(state);
  drawMatrixTop(state);
  drawDefenseRanks(state, drawOverview);
  drawPlane(state, drawOverview);
  drawCurves(state, drawOverview);
  drawAttackRanks(state, drawOverview);
  drawWorstCases(state);
  keepChoices();
}

/** Links to sections carry the choices along, so that going to a section loses none. */
function keepChoices() {
  const query = location.hash.split("?")[1];
  for (const link of document.querySelectorAll(".bar nav a, a[data-keep]")) {
    const path = link.getAttribute("href").split("?")[0];
    const section = SECTIONS.includes(path.slice(2)) && path !== "#/numbers" && readAddress().path[0] !== "numbers";
    link.setAttribute("href", section && query ? `${path}?${query}` : path);
  }
}

/** Fill what needs page/numbers.js on the overview, or say why it cannot be filled. */
function fillNumbers() {
  return loadNumbers().then(content => {
    if (!table.content) {
      drawPublished(content);
      drawSoftware(content);
      drawNumbers(content);
    }
  }, error => {
    document.getElementById("published").hidden = true;
    document.getElementById("numbers-table").innerHTML = `<p class="note" role="alert">${escapeHtml(error.message)}</p>`;
    drawSoftware(null, error.message);
  });
}

/** The long table is built when a reader comes near it. */
function fillWhenNear() {
  const observer = new IntersectionObserver(entries => {
    if (!entries.some(entry => entry.isIntersecting)) return;
    observer.disconnect();
    fillNumbers();
  }, {rootMargin: "600px"});
  for (const id of ["published", "numbers", "cite"]) observer.observe(document.getElementById(id));
}

let overviewDrawn = false;

/** Where a reader left the overview for a page of details: going back leads to the same place. */
const left = {hash: null, top: 0, row: 0};

function leaveOverview(hash) {
  if (document.getElementById("overview").hidden) return;
  Object.assign(left, {hash, top: scrollY, row: document.querySelector("#numbers-table .window")?.scrollTop ?? 0});
}

function showOverview([section]) {
  document.getElementById("detail").hidden = true;
  document.getElementById("overview").hidden = false;
  document.title = TITLE;
  if (overviewDrawn && left.hash === location.hash) {
    left.hash = null;
    scrollTo({top: left.top, behavior: "instant"});
    const rows = document.querySelector("#numbers-table .window");  // what is hidden forgets how far it was scrolled
    if (rows) rows.scrollTop = left.row;
    return;
  }
  drawOverview();
  if (!overviewDrawn) {
    drawCounts();
    drawStrips();
    drawFindings();
    drawWords();
    drawSoftware(null, "Loading.");
    fillWhenNear();
    overviewDrawn = true;
  }
  const go = () => SECTIONS.includes(section) && document.getElementById(section).scrollIntoView();
  if (["published", "numbers", "cite"].includes(section)) fillNumbers().then(() => {
    if (table.content) {
      drawNumberControls(refreshNumbers);
      refreshNumbers();
    }
    go();
  });
  else if (section) go();
  else scrollTo(0, 0);
}

function showDetail(path, leaving) {
  leaveOverview(leaving);
  const holder = document.getElementById("detail");
  document.getElementById("overview").hidden = true;
  holder.hidden = false;
  if (!full) holder.innerHTML = `<p class="muted" role="status">Loading page/numbers.js …</p>`;
  return loadNumbers().then(content => {
    if (readAddress().path.join("/") !== path.join("/")) return;  // the reader went on meanwhile
    const title = DETAIL_PAGES[path[0]](path.slice(1), content, holder);
    if (title === null) holder.innerHTML = missingHtml(path.slice(1).join("/"));
    document.title = `mibench: ${title ?? "nothing here"}`;
    scrollTo({top: 0, behavior: "instant"});
  }, error => {
    holder.innerHTML = `<h1>The numbers are not here</h1><p class="note" role="alert">${escapeHtml(error.message)}</p><p><a href="#/">Back to the overview</a></p>`;
  });
}

function route(event) {
  hideTip();
  document.getElementById("dialog").close();
  const {path} = readAddress();
  if (Object.hasOwn(DETAIL_PAGES, path[0])) showDetail(path, event ? new URL(event.oldURL).hash : null);
  else showOverview(path);
}

function switchTheme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
}

document.getElementById("theme").onclick = switchTheme;
document.querySelector(".skip").onclick = event => {  // the address holds the state, so the link may not change it
  event.preventDefault();
  document.getElementById("main").focus();
};
putFigureDownload(document.getElementById("matrix-tools"), () => { const state = currentChoices(); return state && matrixSvg(state); }, "mibench-matrix", "What each attack still gets past each defense");
putDownloads(document.getElementById("matrix-tools"), matrixTable, "the matrix");
addEventListener("hashchange", route);
matchMedia("(max-width: 620px)").addEventListener("change", () => { if (!document.getElementById("overview").hidden) drawOverview(); });
addEventListener("scroll", hideTip, {passive: true});
route();
window.mibench = {overview, groups, views, table, loadNumbers, currentChoices, readAddress, drawn: performance.now()};
