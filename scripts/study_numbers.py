"""What the tables of docs/findings.md are made of: groups of a committed study, and numbers as a table shows them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pyarrow as pa

from mibench.leaderboard.collect import readable
from mibench.leaderboard.groups import Group, groups_of
from mibench.leaderboard.lines import number
from mibench.leaderboard.verdicts import above_control

ROOT = Path(__file__).parent.parent
VOTE = ("attack_accuracy", "top1", "vote")
AGREED = ("agreed_accuracy", "", "vote")

Row = Sequence[str]


@cache
def study(*names: str) -> list[Group]:
    """Return the measured groups of committed studies, over the seeds of all of them; none where no study is there."""
    paths = [ROOT / "results" / "studies" / f"{name}.parquet" for name in names]
    tables = [readable(path) for path in paths if path.exists()]
    return [one for one in groups_of(pa.concat_tables(tables)) if one.measured] if tables else []


def beside(group: Group, metric: str, variant: str = "", evaluator: str = "", interval: bool = False) -> str:
    """Return a number beside its control, in bold where the interval of the lift over it lies above zero.

    ``variant`` may be a beginning.
    """
    found = next(
        (
            one
            for one in group.numbers
            if one.score.metric == metric
            and (one.score.variant.startswith(variant) if variant else not one.score.variant)
            and evaluator in one.score.evaluator
        ),
        None,
    )
    if found is None or found.score.status != "ok":
        return ""
    score = found.score
    value = f"**{number(score.value)}**" if above_control(score) else number(score.value)
    spread = f" [{number(score.ci_low)}, {number(score.ci_high)}]" if interval else ""
    return f"{value}{spread} / {number(score.control)}"


def strength(group: Group, key: tuple[str, str, str] = VOTE) -> float:
    """Return a group's number, for sorting."""
    found = group.number(*key)
    return found.score.value if found is not None else -1.0


def seeds(group: Group) -> str:
    """Return how many seeds were measured."""
    return str(sum(cell.status == "ok" for cell in group.cells))
