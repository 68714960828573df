"""Attacks by defenses as a picture: the lift in every field, with its interval and the mark of its verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mibench.leaderboard.exports.crosstab import Cell, Crosstab, Key, crosstabs
from mibench.leaderboard.exports.labels import Label, Options
from mibench.leaderboard.exports.marks import marks_of, value_of
from mibench.leaderboard.exports.series import Panel, Panels
from mibench.leaderboard.groups import Group
from mibench.leaderboard.language import COLOURS, WORDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def matrices(groups: Sequence[Group], options: Options, key: Key | None, _cost: str) -> Panels:
    """Return panels of attacks by defenses, the lift in every field; what was not measured is hatched."""
    tables = crosstabs(groups, "attack", "defense", options, key)

    def panel(table: Crosstab) -> Panel:
        def drawn(part: Figure | None, width: float) -> float:
            if part is not None:
                _matrix(part, table, width)
            longest = max((_row_name(one).count("\n") + 1 for one in table.rows), default=1)
            return (
                0.9 + max(0.34, 0.11 * longest) * len(table.rows) + 0.11 * len({one.verdict for one in table.measured})
            )

        return drawn

    return [panel(one) for one in tables], [(one.facts, one.options) for one in tables]


def _matrix(part: Figure, table: Crosstab, width: float) -> None:
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    axes = part.subplots()
    marks = marks_of(one.verdict for one in table.measured)
    sizes = [one.span[0] for one in table.measured]
    shades = LinearSegmentedColormap.from_list("shades", ["#ffffff", "#b8b8b8"])
    scale = Normalize(min(0.0, *sizes) if sizes else 0.0, max([*sizes, 1e-9]))
    room = (width - 0.9) / max(len(table.columns), 1)  # inches of a field, in which about 16 characters of 1 pt fit
    size = max(3.5, min(6.5, room * 72 / 7.5))
    for down, row in enumerate(table.rows):
        for across, column in enumerate(table.columns):
            cell = table.cells.get((row, column))
            shown = cell is not None and cell.measured
            face = shades(scale(cell.span[0])) if cell is not None and shown else "white"
            axes.add_patch(
                Rectangle((across, down), 1, 1, facecolor=face, edgecolor="0.5", linewidth=0.5,
                          hatch="" if shown else "//////")
            )  # fmt: skip
            if cell is not None and shown:
                _field(axes, cell, across, down, size, marks)
    axes.set(xlim=(0, len(table.columns)), ylim=(len(table.rows), 0))
    tilted = len(table.columns) > 4
    step = 24 if tilted else 14 if len(table.columns) > 3 else 20
    axes.set_xticks([place + 0.5 for place in range(len(table.columns))],
                    [textwrap.fill(one.text, step) for one in table.columns])  # fmt: skip
    axes.set_yticks([place + 0.5 for place in range(len(table.rows))],
                    [_row_name(one) for one in table.rows])  # fmt: skip
    if tilted:
        for label in axes.get_xticklabels():
            label.set(rotation=40, ha="right", rotation_mode="anchor")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    legend = [f"{mark.text} {word}" for word, mark in marks.items()]
    if len(table.measured) < len(table.rows) * len(table.columns):
        legend.append("hatched: not measured")
    axes.set_xlabel(textwrap.fill("    ".join(legend), round(width * 17)))


def _row_name(label: Label) -> str:
    """Return the name of a row in lines, as it stands beside its fields."""
    return textwrap.fill(label.text, 24)


def _field(axes: Axes, cell: Cell, across: int, down: int, size: float, marks: Mapping[str, Any]) -> None:
    value, interval = value_of(cell)
    axes.text(across + 0.5, down + 0.36, value, ha="center", va="center", fontsize=size)
    axes.text(across + 0.5, down + 0.74, interval, ha="center", va="center", fontsize=size * 0.72)
    if cell.verdict in marks:
        colour = COLOURS[WORDS[cell.verdict].tone]
        behind = size * (0.33 * len(value) + 0.3)
        axes.annotate(marks[cell.verdict].text, (across + 0.5, down + 0.36), (behind, 0), textcoords="offset points",
                      ha="left", va="center", fontsize=size, color=colour)  # fmt: skip
