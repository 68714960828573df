"""Comparisons as data frames, for Python."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mibench.errors import UserError
from mibench.leaderboard.compare import AXES, compared, groups_in, picked

if TYPE_CHECKING:
    import pandas as pd


def compare(
    by: str,
    base: str = "",
    *,
    metric: str = "",
    variant: str = "",
    evaluator: str = "",
    results: str | Path = "results",
    **facts: str,
) -> pd.DataFrame:
    """Return paired differences between groups that differ in one axis alone, with what they decide.

    Args:
        by: The axis: ``attack``, ``defense``, ``target`` or ``precision``.
        base: Its entry that all others are compared with (``none``); empty for every two.
        metric: Which number, with ``variant`` and ``evaluator``; empty for the headline of each task.
        variant: Its form.
        evaluator: Its evaluation model or network.
        results: The folder of studies and shards.
        facts: What the groups have in common, as ``dataset="lfw,digits"``.

    Returns:
        One row per comparison: ``left``, ``right`` (group ids), their entries of the axis, ``metric``, ``variant``,
        ``evaluator``, ``difference``, ``low``, ``high`` (95 % interval), ``p`` (Holm, over the table), ``targets``,
        ``seeds``, ``verdict`` (``more``, ``less`` or ``undecided``) and ``reason``.

    Raises:
        UserError: If there is no such axis or fact.
    """
    import pandas as pd

    if by not in AXES:
        raise UserError(f"Groups are compared by {', '.join(AXES)}, but not by '{by}'.")
    key = (metric, variant, evaluator) if metric else None
    rows = [
        {
            "left": one.left.group_id,
            "right": one.right.group_id,
            f"left_{by}": one.left.facts.get(by, ""),
            f"right_{by}": one.right.facts.get(by, ""),
            **dict(zip(("metric", "variant", "evaluator"), one.key, strict=True)),
            "difference": one.spread.mean,
            "low": one.spread.low,
            "high": one.spread.high,
            "p": one.p,
            "targets": one.spread.n,
            "seeds": one.spread.seeds,
            "verdict": one.verdict,
            "reason": one.reason,
        }
        for one in compared(picked(groups_in(Path(results).expanduser()), facts), by, base, key)
    ]
    return pd.DataFrame(rows)
