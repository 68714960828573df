// Controls: selects, a row of buttons, chips. Each one writes the address; drawing reads it back.

function selectHtml(label, name, entries, chosen, after = "") {
  const options = entries.map(([value, text]) => `<option value="${escapeHtml(value)}"${String(value) === String(chosen) ? " selected" : ""}>${escapeHtml(text)}</option>`).join("");
  return `<label>${escapeHtml(label)} <select name="${escapeHtml(name)}">${options}</select>${after ? ` ${escapeHtml(after)}` : ""}</label>`;
}

/** Redraw and give the focus back to the control that was used. */
function redrawKeepingFocus(holder, selector, redraw) {
  redraw();
  holder.querySelector(selector)?.focus({preventScroll: true});
}

function unique(values) {
  return [...new Set(values)];
}

/** Datasets as buttons, then what the attacker sees, under which conditions, and the access, where there is a choice. */
function drawViewControls(holder, view, access, redraw) {
  const names = unique(matrixViews.map(other => other.dataset)).sort((a, b) => a - b);
  const sameData = matrixViews.filter(other => other.dataset === view.dataset);
  const sights = unique(sameData.map(sightOf));
  const sameSight = sameData.filter(other => sightOf(other) === sightOf(view));
  const buttons = names.map(dataset => `<button type="button" data-dataset="${dataset}" aria-pressed="${dataset === view.dataset}">${escapeHtml(datasets[dataset].title)}</button>`).join("");
  holder.innerHTML = `<span class="segments" role="group" aria-label="Dataset">${buttons}</span>`
    + (sights.length > 1 ? selectHtml("attacker sees", "sees", sights.map(sight => [sight, sight]), sightOf(view)) : `<span class="muted small">attacker sees <b>${escapeHtml(sightOf(view))}</b></span>`)
    + (view.accesses.length > 1 ? selectHtml("access", "access", [["", "any"], ...view.accesses.map(name => [name, accesses[name] || name])], access) : "")
    + (sameSight.length > 1 ? selectHtml("under", "view", sameSight.map(other => [other.id, other.under]), view.id) : `<span class="muted small">${escapeHtml(view.under)}</span>`);
  const goTo = other => changeChoices({view: other.id, access: "", attack: "", pick: ""});
  holder.onclick = event => {
    const button = event.target.closest("[data-dataset]");
    if (!button) return;
    const dataset = Number(button.dataset.dataset);
    const candidates = matrixViews.filter(other => other.dataset === dataset);
    goTo(candidates.find(other => sightOf(other) === sightOf(view)) || candidates[0]);
    redrawKeepingFocus(holder, `[data-dataset="${dataset}"]`, redraw);
  };
  holder.onchange = event => {
    const {name, value} = event.target;
    if (name === "sees") goTo(sameData.find(other => sightOf(other) === value));
    else if (name === "view") goTo(viewById.get(value));
    else changeChoices({access: value, attack: "", pick: ""});
    redrawKeepingFocus(holder, `[name="${name}"]`, redraw);
  };
}

/** What the attacker sees, with the task where the same sight serves several. */
function sightOf(view) {
  const tasks = unique(matrixViews.filter(other => other.dataset === view.dataset && other.sees === view.sees).map(other => other.task));
  return tasks.length > 1 ? `${view.sees} (${view.task})` : view.sees;
}

/** Buttons of which several can be pressed; the pressed ones carry the colours of their lines. */
function chipsHtml(entries, picked) {
  return entries.map(([value, text]) => {
    const place = picked.indexOf(value);
    return `<button type="button" data-pick="${escapeHtml(value)}" aria-pressed="${place >= 0}"${place >= 0 ? ` style="background:var(--line${place})"` : ""}>${escapeHtml(text)}</button>`;
  }).join("");
}
