// Numbers, words and links as the page shows them. Everything that comes from data or from the address passes
// `escapeHtml` (or textContent) before it becomes part of the page.

const ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"};

function escapeHtml(value) {
  return String(value ?? "").replace(/[&<>"']/g, character => ENTITIES[character]);
}

/** A number with a true minus sign; two decimals below 10, one below 1000, grouped thousands above. */
function formatNumber(value, signed = false) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  const digits = size >= 1000 ? formatCount(Math.round(size)) : size >= 10 ? size.toFixed(1) : size.toFixed(size > 0 && size < 0.005 ? 3 : 2);
  const zero = Number(digits.replace(/,/g, "")) === 0;
  return (zero ? "" : value < 0 ? "−" : signed ? "+" : "") + digits;
}

/** A whole number with commas; the same on every machine, unlike toLocaleString(). */
function formatCount(value) {
  return value === null || value === undefined ? "–" : String(value).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
}

function formatInterval(low, high) {
  return low === null || low === undefined || high === null || high === undefined ? "no interval" : `[${formatNumber(low)}, ${formatNumber(high)}]`;
}

function formatPercent(share, digits = 0) {
  return share === null || share === undefined ? "–" : `${(share * 100).toFixed(digits)} %`;
}

/** Short enough for a cell of the matrix: .78, 9.8, 42. */
function formatShort(value) {
  const size = Math.abs(value);
  const digits = size >= 100 ? size.toFixed(0) : size >= 10 ? size.toFixed(1) : size.toFixed(2).replace(/^0(?=\.)/, "");
  return (value < 0 && Number(digits) !== 0 ? "−" : "") + digits;
}

function formatRank(best, last) {
  return best === last ? String(best) : `${best}–${last}`;
}

function formatSeconds(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 60) return `${formatNumber(seconds)} s`;
  return seconds < 3600 ? `${formatNumber(seconds / 60)} min` : `${formatNumber(seconds / 3600)} h`;
}

function withUnit(text, unit) {
  return unit ? `${text} ${unit}` : text;
}

/** Mark and word of a verdict, as mibench/leaderboard/language.py has them. */
function verdictText(index) {
  const verdict = verdicts[index];
  return verdict ? `${verdict.mark} ${verdict.word}` : "";
}

function verdictHtml(index) {
  const verdict = verdicts[index];
  return verdict ? `<span class="verdict ${escapeHtml(verdict.tone)}" title="${escapeHtml(verdict.meaning)}"><span aria-hidden="true">${escapeHtml(verdict.mark)}</span> ${escapeHtml(verdict.word)}</span>` : "";
}

function toneOf(index) {
  return verdicts[index] ? verdicts[index].tone : "calm";
}

/** "text", ["text", "#/address"] or ["text", ""] (bold), as HTML. Only addresses of this page become links. */
function segmentsHtml(segments) {
  return (Array.isArray(segments) ? segments : [segments]).map(segment => {
    if (!Array.isArray(segment)) return escapeHtml(segment);
    const [text, target] = segment;
    return target && target.startsWith("#/") ? `<a href="${escapeHtml(target)}">${escapeHtml(text)}</a>` : `<b>${escapeHtml(text)}</b>`;
  }).join("");
}

function segmentsText(segments) {
  return (Array.isArray(segments) ? segments : [segments]).map(segment => (Array.isArray(segment) ? segment[0] : segment)).join("");
}

function titleOf(kind, index) {
  const entry = (kind === "attack" ? attacks : defenses)[index];
  return entry ? entry.title || entry.name : "";
}

function methodAddress(kind, index) {
  return `#/method/${kind}/${encodeURIComponent((kind === "attack" ? attacks : defenses)[index].name)}`;
}

function methodLink(kind, index) {
  return `<a href="${escapeHtml(methodAddress(kind, index))}">${escapeHtml(titleOf(kind, index))}</a>`;
}

function groupLink(group, text) {
  return `<a href="#/group/${escapeHtml(encodeURIComponent(group.id))}">${escapeHtml(text)}</a>`;
}

/** The setting of a defense in words; its default has no words of its own. */
function levelText(group) {
  return group.level || (group.defense === undefended ? "" : "default");
}

/** A setting in which no option parts from its value at the end of a line. */
function settingHtml(text) {
  return escapeHtml(text).replace(/([^,;]) /g, "$1&nbsp;");
}

function settingLink(group, text) {
  return `<a href="#/group/${escapeHtml(encodeURIComponent(group.id))}">${settingHtml(text)}</a>`;
}

function viewName(view) {
  return [datasets[view.dataset]?.title, view.sees, view.under].filter(Boolean).join(", ");
}

/** A web address, stored without its protocol, as a link; what is no host name is shown as text. */
function outsideLink(address, text) {
  const plain = String(address ?? "").replace(/^https:\/\//, "");
  return /^[a-z0-9-]+(\.[a-z0-9-]+)+(\/|$)/i.test(plain) ? `<a href="https://${escapeHtml(plain)}" rel="noopener">${escapeHtml(text || plain)}</a>` : escapeHtml(text || plain);
}
