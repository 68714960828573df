"""Figures for a paper: privacy against utility, attacks by defenses, leaks by cost.

Blocks of groups that cannot be compared have a panel each. Nothing rests on colour alone: lines differ in their dashes,
points in their shape, verdicts in how a point is filled or in a mark. The same groups give the same bytes.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mibench.errors import UserError
from mibench.files import write_bytes
from mibench.leaderboard.exports.crosstab import Key, parted
from mibench.leaderboard.exports.labels import Options
from mibench.leaderboard.exports.matrix import matrices
from mibench.leaderboard.exports.series import Panels, costs, fronts
from mibench.leaderboard.groups import Group

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: What does not follow the settings of a machine; text stays text, and fonts of PDF are TrueType.
STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans", "font.size": 7, "axes.titlesize": 7, "axes.labelsize": 7, "legend.fontsize": 6,
    "xtick.labelsize": 6.5, "ytick.labelsize": 6.5, "lines.linewidth": 0.9, "lines.markersize": 4.5,
    "axes.linewidth": 0.6, "text.parse_math": False, "axes.spines.top": False, "axes.spines.right": False,
    "hatch.linewidth": 0.4,
    "svg.fonttype": "none", "svg.hashsalt": "mibench", "pdf.fonttype": 42, "savefig.dpi": 300,
}  # fmt: skip

#: What a file says of itself, by its ending: nothing of when or by which version it was made.
ENDINGS: Mapping[str, Mapping[str, str | None]] = {
    ".svg": {"Date": None, "Creator": "mibench"},
    ".pdf": {"CreationDate": None, "Creator": "mibench", "Producer": "mibench"},
    ".png": {"Software": "mibench"},
}

#: Most panels of one figure.
PANELS = 6

#: The kinds of figures: what draws them.
KINDS: Mapping[str, Callable[[Sequence[Group], Options, Key | None, str], Panels]] = {
    "front": fronts,
    "matrix": matrices,
    "queries": costs,
}


@np.errstate(invalid="ignore")  # of infinite values, which are not drawn
def draw(
    kind: str,
    groups: Sequence[Group],
    out: Path,
    options: Options,
    key: Key | None = None,
    width: float = 3.3,
    cost: str = "queries",
) -> list[str]:
    """Write a figure and return what a reader of it must know, a sentence each.

    Args:
        kind: A key of :data:`KINDS`.
        groups: The groups.
        out: The file; its ending says the format, one of :data:`ENDINGS`.
        options: What of a group differs from the defaults.
        key: Metric, variant and evaluator; None for the headline of each task.
        width: Width in inches: 3.3 for one column of a paper, 6.8 for two.
        cost: What ``queries`` has on its axis: ``queries`` or ``gradients``.

    Raises:
        UserError: If matplotlib is missing, there is nothing to draw or too much, or the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UserError("Figures need matplotlib, which is not installed: pip install 'mibench[figures]'.") from error
    panels, told = KINDS[kind](groups, options, key, cost)
    if len(panels) > PANELS:
        raise UserError(
            f"These groups are {len(panels)} blocks that cannot be compared, of which a figure holds {PANELS}: pick by "
            f"what they differ in ({parted(told)})."
        )
    notes = []
    if len(panels) > 1:
        notes.append(f"{len(panels)} panels, because groups that differ in {parted(told)} cannot be compared.")
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, **STYLE}):
        heights = [panel(None, width) for panel in panels]
        figure = Figure(figsize=(width, sum(heights)), layout="constrained")
        parts = figure.subfigures(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for panel, part, (facts, said) in zip(panels, parts, told, strict=True):
            panel(part, width)
            part.suptitle(_wrapped(_heading(facts, said if len(panels) > 1 else ()), width), fontsize=7)
        _save(figure, out)
    return notes


def _heading(facts: Mapping[str, str], said: Iterable[str]) -> str:
    told = [facts[name] for name in ("dataset", "target", "access", "budget") if facts.get(name)]
    return ", ".join([*told, *said])


def _wrapped(text: str, width: float) -> str:
    return textwrap.fill(text, round(width * 18))


def _save(figure: Figure, out: Path) -> None:
    """Write a figure atomically."""
    kept = io.BytesIO()
    figure.savefig(kept, format=out.suffix[1:], metadata=dict(ENDINGS[out.suffix]))
    try:
        write_bytes(out, kept.getvalue())
    except OSError as error:
        raise UserError(f"{out} cannot be written ({error.strerror}); set out to another file.") from error
