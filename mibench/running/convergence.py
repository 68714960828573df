"""Whether an attack's headline number still moves where its search goes on for twice as long."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mibench.card import headline_of
from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.leaderboard.scoring import Score, group_means
from mibench.leaderboard.statistics import NAN
from mibench.metrics.base import Metric
from mibench.tasks.base import Reconstruction, Truth

if TYPE_CHECKING:
    from mibench.leaderboard.statistics import Floats

#: The verdicts.
NOT_CHECKED, CONVERGED, MOVES = "not checked", "converged", "not converged"
NO_SEARCH, UNKNOWN = "no search", "not measured"


@dataclass(frozen=True)
class Convergence:
    """What came of the check of one cell.

    Attributes:
        verdict: ``not checked``; ``converged`` where the headline number moves by less than one standard error or not
            at all; ``not converged``; ``no search`` where the attack has no length; ``not measured`` where there is no
            headline number, or only one target.
        moved: The headline number at twice the length minus that at once.
        error: Its standard error over the targets, at once the length.
        n: Number of targets.
        unit: Unit of the headline number.
        reason: Why there is no number.
    """

    verdict: str = NOT_CHECKED
    moved: float = NAN
    error: float = NAN
    n: int = 0
    unit: str = ""
    reason: str = ""

    def scores(self) -> list[Score]:
        """Return the rows of the check: the move, whose variant is the verdict, and the standard error."""
        if self.verdict == NOT_CHECKED:
            return []
        if self.reason:
            return [Score(metric="convergence", variant=self.verdict, status="skipped", reason=self.reason)]
        return [
            Score(metric="convergence", variant=self.verdict, value=self.moved, n=self.n, unit=self.unit),
            Score(metric="convergence", variant="standard error", value=self.error, n=self.n, unit=self.unit),
        ]


def converged(once: Floats, twice: Floats, unit: str = "") -> Convergence:
    """Return the verdict on values of every target, shape ``(targets,)``, at once and at twice the length."""
    n = len(once)
    if n < 2 or len(twice) != n or not np.isfinite(once + twice).all():
        return Convergence(UNKNOWN, reason="A standard error needs finite values of at least two targets.")
    moved = float(twice.mean() - once.mean())
    error = float(once.std(ddof=1)) / math.sqrt(n)
    verdict = CONVERGED if moved == 0 or abs(moved) < error else MOVES
    return Convergence(verdict, moved, error, n, unit)


@dataclass(frozen=True)
class Headline:
    """The headline number of a reconstruction.

    Attributes:
        values: One per target, shape ``(targets,)``.
        unit: Their unit.
    """

    values: Floats
    unit: str


def headline(
    metrics: Sequence[Metric[Any]], task: str, modality: str, result: Reconstruction, truth: Truth
) -> Headline | None:
    """Measure the headline number of a task; None where it is not among the metrics or cannot be measured.

    Args:
        metrics: The metrics of the cell.
        task: The task.
        modality: The modality of the data.
        result: The reconstruction, aligned with the truth.
        truth: What to compare with.
    """
    name, variant, evaluator = headline_of(task, modality)
    metric = next((one for one in metrics if one.card.name == name), None)
    if metric is None or (truth.unknown and not metric.needs_no_truth):
        return None
    try:
        measured = [one for one in metric.measure(result, truth) if one.variant == variant and not one.reason]
    except (WeightsMissingError, NotMeasurableError):
        return None
    if not measured:
        return None
    found = next((one for one in measured if one.evaluator == evaluator), measured[-1])  # a single judge is the vote
    return Headline(group_means(found), metric.card.unit if found.unit is None else found.unit)
