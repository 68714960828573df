"""The first view as a table of plain HTML, for readers without a script."""

from __future__ import annotations

from html import escape

from mibench.leaderboard.language import shown
from mibench.leaderboard.lines import number as written
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.records import Record


def static_table(sources: Sources) -> str:
    """Return the matrix of the first view: per attack and defense the lift of every setting, and its verdict.

    Empty where nothing has been measured.
    """
    if not sources.views:
        return ""
    axes, view, table = sources.axes, sources.views[0], sources.tables[0]
    data = axes.title("dataset", view.facts["dataset"])
    caption = f"Lift over the control: {data}, {view.sees}, {view.under}."
    heads = "".join(f'<th scope="col">{escape(axes.title("defense", name))}</th>' for name in table.defenses)
    lines = []
    for attack in table.attacks:
        cells = []
        for defense in table.defenses:
            own = table.cells.get((attack, defense), ())
            empty = table.empty.get((attack, defense), ("not measured", ""))[0]
            cells.append(f"<td>{'<br>'.join(map(_cell, own)) or escape(empty)}</td>")
        name = escape(axes.title("attack", attack))
        lines.append(f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>')
    return (
        f"<table><caption>{escape(caption)}</caption><thead><tr><td></td>{heads}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _cell(record: Record) -> str:
    score = record.score
    assert score is not None
    words = [f"{written(score.lift, signed=True)} {score.unit}".strip(), shown(score.evidence)]
    return escape(", ".join([*([record.level] if record.level else []), *words]))
