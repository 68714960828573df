"""From measurements to numbers: means over targets, bootstrap intervals, control and lift."""

from __future__ import annotations

import dataclasses
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.seeding import derive, generator

if TYPE_CHECKING:
    from torch import Tensor

    from mibench.metrics.base import Measurement, Metric
    from mibench.tasks.base import Reconstruction, Truth, TruthT

log = logging.getLogger("mibench")

NAN = float("nan")

#: Of fewer targets a bootstrap says little: two that agree by chance would look certain.
LEAST_TARGETS = 5

#: Of fewer targets no half says anything.
LEAST_HALVED = 4

#: A victim that covers less than this share of the way from chance to always right is said to be near chance.
NEAR_CHANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of a cell, with its interval, its control and the lift over it.

    Attributes:
        metric: Id of the metric.
        variant: Which form.
        evaluator: Evaluation model or pre-trained network.
        value: Mean over targets.
        ci_low: Lower end of the 95 % bootstrap interval over targets.
        ci_high: Upper end.
        n: Number of values behind the mean.
        control: The same number without the leak.
        lift: ``value - control`` where higher is leakier, ``control - value`` otherwise.
        lift_low: Lower end of the lift's 95 % interval (targets are resampled for value and control together).
        lift_high: Upper end.
        lift_even: The lift over every second target, from the first; what attacks are picked by for a worst case.
        lift_odd: The lift over the others; NaN, as ``lift_even``, for fewer than four targets.
        higher_is_leakier: Direction; None for numbers that are no leak (utility, guarantees).
        unit: Unit of value and control.
        status: ``ok``, ``skipped`` or ``failed``.
        reason: Why there is no value.
    """

    metric: str
    variant: str = ""
    evaluator: str = ""
    value: float = NAN
    ci_low: float = NAN
    ci_high: float = NAN
    n: int = 0
    control: float = NAN
    lift: float = NAN
    lift_low: float = NAN
    lift_high: float = NAN
    lift_even: float = NAN
    lift_odd: float = NAN
    higher_is_leakier: bool | None = None
    unit: str = ""
    status: str = "ok"
    reason: str = ""


def group_means(measurement: Measurement) -> Tensor:
    """Return the mean of every target's values, shape ``(targets,)``, in double precision."""
    import torch

    values, groups = measurement.values.double(), measurement.groups
    return torch.stack([values[groups == group].mean() for group in groups.unique()])


def interval(per_target: Tensor, seed: int, draws: int = 2000) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the mean over targets; NaN for fewer than ``LEAST_TARGETS``."""
    import torch

    if len(per_target) < LEAST_TARGETS or not bool(per_target.isfinite().all()):
        return NAN, NAN
    rows = torch.randint(len(per_target), (draws, len(per_target)), generator=generator(derive(seed, "bootstrap")))
    low, high = torch.quantile(per_target[rows].mean(1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def score(
    metric: Metric[TruthT],
    result: Reconstruction,
    control: Reconstruction | None,
    truth: TruthT,
    seed: int,
) -> list[Score]:
    """Measure a reconstruction and its control with one metric.

    Args:
        metric: The metric.
        result: The reconstruction, aligned with the truth.
        control: The control's reconstruction, aligned likewise; None where there is none.
        truth: What to compare with.
        seed: Seed of the bootstrap.

    Returns:
        One score per variant and evaluator; skipped ones carry their reason.
    """
    card = metric.card
    if truth.unknown and not metric.needs_no_truth:
        return [Score(metric=card.name, status="skipped", reason=truth.unknown, unit=card.unit)]
    try:
        measured = metric.measure(result, truth)
        control_measured: Sequence[Measurement | None] = [None] * len(measured)
        if control is not None and not metric.of_victim:
            control_measured = metric.measure(control, truth)
    except (WeightsMissingError, NotMeasurableError) as missing:
        return [Score(metric=card.name, status="skipped", reason=str(missing), unit=card.unit)]
    return [
        _score(card.name, card.unit, card.higher_is_leakier if not metric.of_victim else None, one, other, seed)
        for one, other in zip(measured, control_measured, strict=True)
    ]


def null_scores(
    metrics: Sequence[Metric[TruthT]], name: str, null: Reconstruction, truth: TruthT, seed: int
) -> list[Score]:
    """Measure a null, what is answered without any model, as yardsticks whose variant begins with its name."""
    found = []
    for metric in metrics:
        if not metric.of_victim:
            for one in score(metric, null, None, truth, seed):
                if one.status == "ok":  # what a null has no answer for needs no row
                    variant = f"null {name} {one.variant}".strip()
                    found.append(dataclasses.replace(one, variant=variant, higher_is_leakier=None))
    return found


def _score(name: str, unit: str, higher: bool | None, one: Measurement, other: Measurement | None, seed: int) -> Score:
    if one.yardstick:
        higher = other = None
    if one.reason:
        return Score(
            metric=name, variant=one.variant, evaluator=one.evaluator, status="skipped", reason=one.reason, unit=unit
        )
    per_target = group_means(one)
    low, high = interval(per_target, seed)
    plain = Score(
        metric=name,
        variant=one.variant,
        evaluator=one.evaluator,
        value=float(per_target.mean()),
        ci_low=low,
        ci_high=high,
        n=len(one.values),
        higher_is_leakier=higher,
        unit=unit if one.unit is None else one.unit,
    )
    if other is None:
        return plain
    other_per_target = group_means(other)
    if higher is None:
        return dataclasses.replace(plain, control=float(other_per_target.mean()))
    sign = 1.0 if higher else -1.0
    gain = sign * (per_target - other_per_target)
    lift_low, lift_high = interval(gain, seed)
    halves = [float(half.mean()) for half in (gain[::2], gain[1::2])] if len(gain) >= LEAST_HALVED else [NAN, NAN]
    return dataclasses.replace(
        plain,
        control=float(other_per_target.mean()),
        lift=float(gain.mean()),
        lift_low=lift_low,
        lift_high=lift_high,
        lift_even=halves[0],
        lift_odd=halves[1],
    )


def facts_as_scores(truth: Truth) -> list[Score]:
    """Return what the defense reports of itself as scores: numbers as values, words as their variant."""
    words = ", ".join(f"{name}={value}" for name, value in sorted(truth.facts.items()) if isinstance(value, str))
    return [
        Score(metric=name, variant=words, value=float(value), n=1)
        for name, value in sorted(truth.facts.items())
        if not isinstance(value, str)
    ]


def near_chance(accuracy: float, chance: float) -> bool:
    """Return whether an accuracy covers less than ``NEAR_CHANCE`` of the way from chance to always right."""
    return accuracy < chance + NEAR_CHANCE * (1 - chance)


def evidence(one: Score) -> str:
    """Return ``leak``, ``no evidence``, ``too few targets`` or ``no control``; nothing where it speaks of no leak."""
    if one.higher_is_leakier is None or one.status != "ok":
        return ""
    if math.isnan(one.control):
        return "no control"
    if math.isnan(one.lift):
        return ""
    if math.isnan(one.lift_low):
        return "too few targets"
    return "leak" if one.lift_low > 0 else "no evidence"
