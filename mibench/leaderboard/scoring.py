"""From measurements to numbers: means over targets with their intervals, beside the control and the strongest null."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mibench.errors import NotMeasurableError, WeightsMissingError
from mibench.leaderboard.statistics import NAN, difference_interval, in_blocks, mean_interval, share_interval

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mibench.metrics.base import Measurement, Metric
    from mibench.tasks.base import Reconstruction, Truth, TruthT

    Floats = NDArray[np.float64]

log = logging.getLogger("mibench")

#: A victim that covers less than this share of the way from chance to always right is said to be near chance.
NEAR_CHANCE = 0.1


@dataclass(frozen=True, kw_only=True)
class Score:
    """One number of a cell, with its interval, its control, its strongest null and what it is evidence of.

    Attributes:
        metric: Id of the metric.
        variant: Which form.
        evaluator: Evaluation model or pre-trained network.
        value: Mean over targets.
        ci_low: Lower end of its 95 % interval over targets (:mod:`mibench.leaderboard.statistics`).
        ci_high: Upper end.
        n: Number of targets: people, clients, records.
        samples: Number of values behind the mean: reconstructions, test examples.
        control: The same number without the leak.
        lift: ``value - control`` where higher is leakier, ``control - value`` otherwise; a mean over targets.
        lift_low: Lower end of the lift's 95 % interval.
        lift_high: Upper end.
        null: The same number of the strongest null: what is answered without any leak.
        null_name: Which null that is; empty where there is none.
        null_lift: The lift over it, as over the control.
        null_lift_low: Lower end of its 95 % interval.
        higher_is_leakier: Direction; None for numbers that are no leak (utility, guarantees).
        unit: Unit of value, control and null.
        share: Whether values are shares within [0, 1].
        evidence: A word of :mod:`mibench.leaderboard.verdicts`; empty where the number speaks of no leak.
        confirmed_by: The independent judges that confirm a leak which evaluation models see.
        targets: Names of the targets, the same in cells of other attacks and seeds; empty where they have none.
        per_target: Value by target; above 1,000 targets of 20 equal blocks of them.
        per_target_control: The control's; empty where there is none.
        per_target_null: The null's; empty where there is none.
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
    samples: int = 0
    control: float = NAN
    lift: float = NAN
    lift_low: float = NAN
    lift_high: float = NAN
    null: float = NAN
    null_name: str = ""
    null_lift: float = NAN
    null_lift_low: float = NAN
    higher_is_leakier: bool | None = None
    unit: str = ""
    share: bool = False
    evidence: str = ""
    confirmed_by: str = ""
    targets: Sequence[str] = ()
    per_target: Sequence[float] = ()
    per_target_control: Sequence[float] = ()
    per_target_null: Sequence[float] = ()
    status: str = "ok"
    reason: str = ""

    def having(self, **changes: Any) -> Score:
        """Return the same score with other values of some fields; several times faster than ``dataclasses.replace``."""
        other = object.__new__(Score)
        other.__dict__.update(self.__dict__, **changes)
        return other


def group_means(measurement: Measurement) -> Floats:
    """Return the mean of every target's values, shape ``(targets,)``, in the order of the targets."""
    import torch

    values = measurement.values.double()
    _, place = measurement.groups.unique(return_inverse=True)
    count = torch.bincount(place)
    means: Floats = (torch.zeros(len(count)).double().index_add(0, place, values) / count).numpy()
    return means


def score(
    metric: Metric[TruthT],
    result: Reconstruction,
    control: Reconstruction | None,
    truth: TruthT,
    nulls: Mapping[str, Reconstruction] | None = None,
    names: Mapping[int, str] | None = None,
    strangers: Mapping[str, tuple[Reconstruction, TruthT]] | None = None,
) -> list[Score]:
    """Measure a reconstruction, its control and its nulls with one metric.

    Args:
        metric: The metric.
        result: The reconstruction, aligned with the truth.
        control: The control's reconstruction, aligned likewise; None where there is none.
        truth: What to compare with.
        nulls: What is answered without any leak, by name, aligned likewise.
        names: What a target is called in every cell, by its number.
        strangers: Nulls about other data, target by target, by name, each with the truth of its own.

    Returns:
        One score per variant and evaluator, without a verdict; skipped ones carry their reason.
    """
    card = metric.card
    if truth.unknown and not metric.needs_no_truth:
        return [Score(metric=card.name, status="skipped", reason=truth.unknown, unit=card.unit)]
    leaks = not metric.of_victim and card.higher_is_leakier is not None
    try:
        measured = metric.measure(result, truth)
        other = None if control is None or metric.of_victim else metric.measure(control, truth)
    except (WeightsMissingError, NotMeasurableError) as missing:
        return [Score(metric=card.name, status="skipped", reason=str(missing), unit=card.unit)]
    answered = {name: (null, truth) for name, null in (nulls or {}).items()} | dict(strangers or {})
    without = {name: _measured(metric, *pair) for name, pair in answered.items()} if leaks else {}
    return [
        _score(
            metric,
            one,
            None if other is None else other[place],
            {name: of_null[place] for name, of_null in without.items() if len(of_null) == len(measured)},
            {} if metric.of_victim else names or {},
        )
        for place, one in enumerate(measured)
    ]


def _measured(metric: Metric[TruthT], null: Reconstruction, truth: TruthT) -> Sequence[Measurement]:
    """Return the measurements of a null; none where it has no answer to what the metric asks."""
    try:
        return metric.measure(null, truth)
    except (WeightsMissingError, NotMeasurableError):
        return ()


def _score(
    metric: Metric[TruthT],
    one: Measurement,
    control: Measurement | None,
    nulls: Mapping[str, Measurement],
    names: Mapping[int, str],
) -> Score:
    card = metric.card
    unit, share = card.unit if one.unit is None else one.unit, card.share if one.share is None else one.share
    said = Score(metric=card.name, variant=one.variant, evaluator=one.evaluator, unit=unit, share=share)
    if one.reason:
        return dataclasses.replace(said, status="skipped", reason=one.reason)
    higher = None if one.yardstick or metric.of_victim else card.higher_is_leakier
    per_target = group_means(one)
    low, high = (share_interval if share else mean_interval)(per_target)
    called = [names[target] for target in one.groups.unique().tolist() if target in names]
    called = called if len(called) == len(per_target) else []
    stored, targets = in_blocks(per_target, called)
    plain = dataclasses.replace(
        said,
        value=float(per_target.mean()),
        ci_low=low,
        ci_high=high,
        n=len(per_target),
        samples=len(one.values),
        higher_is_leakier=higher,
        targets=targets,
        per_target=stored.tolist(),
    )
    if one.yardstick:
        return plain
    plain = _beside_control(plain, per_target, control)
    return _beside_null(plain, per_target, nulls) if higher is not None else plain


def _beside_control(plain: Score, per_target: Floats, control: Measurement | None) -> Score:
    if control is None or control.reason:
        return plain
    other = group_means(control)
    plain = dataclasses.replace(
        plain, control=float(other.mean()), per_target_control=in_blocks(other, plain.targets)[0].tolist()
    )
    if plain.higher_is_leakier is None:
        return plain
    lift, low, high = _lift(plain, per_target, other)
    return dataclasses.replace(plain, lift=lift, lift_low=low, lift_high=high)


def _beside_null(plain: Score, per_target: Floats, nulls: Mapping[str, Measurement]) -> Score:
    """Return a score beside the strongest of the nulls by its mean."""
    means = {name: group_means(one) for name, one in nulls.items() if not one.reason}
    means = {name: one for name, one in means.items() if len(one) == len(per_target)}
    sign = 1 if plain.higher_is_leakier else -1
    if not means:
        return plain
    name = max(means, key=lambda name: sign * float(means[name].mean()))
    lift, low, _ = _lift(plain, per_target, means[name])
    return dataclasses.replace(
        plain,
        null=float(means[name].mean()),
        null_name=name,
        null_lift=lift,
        null_lift_low=low,
        per_target_null=in_blocks(means[name], plain.targets)[0].tolist(),
    )


def _lift(plain: Score, per_target: Floats, other: Floats) -> tuple[float, float, float]:
    """Return the lift over another answer to the same targets, in the direction of the leak, with its interval."""
    left, right = (per_target, other) if plain.higher_is_leakier else (other, per_target)
    return float(left.mean() - right.mean()), *difference_interval(left, right, plain.share)


def facts_as_scores(truth: Truth) -> list[Score]:
    """Return what the defense reports of itself as scores: numbers as values, words as their variant.

    Of one that reports words alone (the table that it chose) they are the variant of ``choices``, which counts them.
    """
    said = [f"{name}={value}" for name, value in sorted(truth.facts.items()) if isinstance(value, str)]
    words = ", ".join(said)
    if said and len(said) == len(truth.facts):
        return [Score(metric="choices", variant=words, value=float(len(said)), n=1, samples=1)]
    return [
        Score(metric=name, variant=words, value=float(value), n=1, samples=1)
        for name, value in sorted(truth.facts.items())
        if not isinstance(value, str)
    ]


def near_chance(accuracy: float, chance: float) -> bool:
    """Return whether an accuracy covers less than ``NEAR_CHANCE`` of the way from chance to always right."""
    return accuracy < chance + NEAR_CHANCE * (1 - chance)
