"""Results and comparisons as data frames, for Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError
from mibench.leaderboard.collect import everything
from mibench.leaderboard.compare import AXES, compared, groups_in, picked
from mibench.leaderboard.groups import FACTS, RUN, Group, groups_of
from mibench.leaderboard.pictures import picture_files
from mibench.leaderboard.pivot import own_options
from mibench.leaderboard.rows import LISTS
from mibench.leaderboard.scoring import Score
from mibench.planning.composition import default_results

if TYPE_CHECKING:
    import pandas as pd


def compare(
    by: str,
    base: str = "",
    *,
    metric: str = "",
    variant: str = "",
    evaluator: str = "",
    results: str | Path | None = None,
    **facts: str,
) -> pd.DataFrame:
    """Return paired differences between groups that differ in one axis alone, with what they decide.

    Args:
        by: The axis: ``attack``, ``defense``, ``target`` or ``precision``.
        base: Its entry that all others are compared with (``none``); empty for every two.
        metric: Which number, with ``variant`` and ``evaluator``; empty for the headline of each task.
        variant: Its form.
        evaluator: Its evaluation model or network.
        results: The folder of studies and shards; None takes ``MIBENCH_RESULTS``, or else ``results``.
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
    where = default_results() if results is None else Path(results).expanduser()
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
        for one in compared(picked(groups_in(where), facts), by, base, key)
    ]
    return pd.DataFrame(rows)


#: What a row of :func:`results_frame` can be.
ROWS = ("groups", "cells")

#: What a row says of a number, in this order.
SCORED = tuple(field.name for field in fields(Score) if field.name not in (*LISTS, "evidence"))

COSTS = ("queries", "gradient_evals", "seconds", "training_seconds", "training_times", "peak_memory_mb")


def results_frame(
    results: Path, rows: str, facts: Mapping[str, str], options: Callable[[Group], Sequence[str]]
) -> pd.DataFrame:
    """Return every number of the groups or cells that have all facts, as :func:`mibench.api.results` describes it.

    Args:
        results: The folder of studies and shards.
        rows: ``groups`` or ``cells``.
        facts: What they have in common, as ``{"dataset": "lfw,digits"}``.
        options: What of a group differs from today's defaults, as words of a command line.

    Raises:
        UserError: If there is no such fact, or ``rows`` is neither.
    """
    import pandas as pd

    if rows not in ROWS:
        raise UserError(f"Expected rows to be {' or '.join(ROWS)}, but got '{rows}'.")
    table = everything(results).table
    belongs = dict(zip(*(table[name].to_pylist() for name in ("cell_id", "group_id")), strict=True))
    if rows == "cells":  # each is a group of its own
        table = table.set_column(table.schema.get_field_index("group_id"), "group_id", table["cell_id"])
    pictures = picture_files(results)
    told: list[dict[str, Any]] = []
    for one in picked(groups_of(table), facts):
        words, first = options(one), one.cells[0]
        picture = next((str(pictures[cell.cell_id]) for cell in one.cells if cell.cell_id in pictures), "")
        shared = {
            **one.facts,
            **{f"{axis}_options": own_options(axis, words) for axis in ("attack", "defense")},
            **{name: one.cost[name] for name in COSTS},
            "group_id": belongs[first.cell_id], "cell_id": first.cell_id, "seed": first.seed,
            "options": " ".join(words), "accuracy": one.accuracy, "picture": picture,
        }  # fmt: skip
        for number in one.numbers:
            scored = {name: getattr(number.score, name) for name in SCORED}
            told.append({**shared, **scored, "verdict": number.verdict, "seeds": number.seeds})
        if not one.numbers:  # every cell was skipped or failed
            told.append({**shared, "status": first.status, "reason": first.reason, "verdict": "", "seeds": 0})
    one_run = ("cell_id", "seed") if rows == "cells" else ()
    names = ("group_id", *one_run, *FACTS, "attack_options", "defense_options", "options", *SCORED, "verdict", "seeds",
             "accuracy", *COSTS, *RUN, "picture")  # fmt: skip
    return pd.DataFrame(told, columns=list(names))
