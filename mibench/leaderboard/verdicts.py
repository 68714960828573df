"""What a number is evidence of: one function for a cell, for a group of seeds and for every page.

The words, in the order in which they are tried:

``no control``
    There is nothing to compare with.
``too few targets``
    Fewer than five targets, of which an interval says nothing.
``weak judge``
    An evaluation model gave the number, and it is less often right on private test data than the victim it judges, by
    more than half a point.
``no evidence``
    The interval of the lift over the control does not lie above zero.
``below null``
    The interval of the lift over the strongest null (what is answered without any leak) does not lie above zero.
``unconfirmed``
    An evaluation model says leak, and no independent judge with power (one that accepts at least half of the real
    private test examples) finds a lift of its own.
``leak``
    All of that holds.

``undecided`` stands for ``leak`` where rows of an earlier schema have neither nulls nor values by target.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from mibench.card import AS_ACCURATE, MetricCard
from mibench.leaderboard.scoring import Score

#: A judge that accepts a smaller share of real private test examples has no power to confirm anything.
POWER = 0.5

VERDICTS = ("no control", "too few targets", "weak judge", "no evidence", "below null", "unconfirmed", "leak",
            "undecided")  # fmt: skip

#: A metric of an independent judge: pairs of the variant of its number and that of its power (see ``MetricCard``).
Confirming = Mapping[str, Sequence[tuple[str, str]]]


def judged(scores: Sequence[Score], old: bool = False) -> list[Score]:
    """Return the scores of one cell, or of one group, with ``evidence`` and ``confirmed_by`` filled.

    Args:
        scores: All of them, since a verdict depends on the judges' accuracies.
        old: Whether they come from rows without nulls and values by target.
    """
    victim, accuracies = _accuracies(scores)
    witnesses = [name for name, number in independent(scores) if number.lift_low > 0]
    found = []
    for one in scores:
        by_model = one.evaluator in accuracies
        weak = by_model and accuracies[one.evaluator] < victim - AS_ACCURATE
        said, confirmed = verdict(one, weak, witnesses if by_model else None)
        if old and said in ("below null", "unconfirmed", "leak"):
            said, confirmed = "undecided", ""
        same = (said, confirmed) == (one.evidence, one.confirmed_by)  # of most numbers nothing is said
        found.append(one if same else one.having(evidence=said, confirmed_by=confirmed))
    return found


def verdict(one: Score, weak: bool, witnesses: Sequence[str] | None) -> tuple[str, str]:
    """Return the word for one number, and who confirms a leak; nothing of a number that speaks of no leak.

    Args:
        one: The number.
        weak: Whether an evaluation model gave it that is less accurate than the victim.
        witnesses: The independent judges with power and a lift of their own; None where it needs none, because no
            evaluation model gave it.
    """
    if one.higher_is_leakier is None or one.status != "ok":
        return "", ""
    if math.isnan(one.control):
        return "no control", ""
    if math.isnan(one.lift):
        return "", ""
    if math.isnan(one.lift_low):
        return "too few targets", ""
    if weak:
        return "weak judge", ""
    if one.lift_low <= 0:
        return "no evidence", ""
    if one.null_name and not one.null_lift_low > 0:
        return "below null", ""
    if witnesses is not None and not witnesses:
        return "unconfirmed", ""
    return "leak", ", ".join(witnesses or ())


def _accuracies(scores: Sequence[Score]) -> tuple[float, dict[str, float]]:
    """Return how often the victim is right, and every evaluation model and their vote, by name."""
    own = [one for one in scores if one.metric == "target_accuracy" and one.status == "ok"]
    victim = next((one.value for one in own if one.variant == "victim"), math.nan)
    known = {one.evaluator: one.value for one in own if one.variant == "evaluator"}
    if known:
        known.setdefault("vote", max(known.values()))
    return victim, known


def independent(scores: Sequence[Score]) -> Iterator[tuple[str, Score]]:
    """Yield the judges with power that no evaluation model has a part in, with the number each gives."""
    confirming = _confirming()
    for metric in sorted({one.metric for one in scores if one.metric in confirming}):
        own = [one for one in scores if one.metric == metric and one.status == "ok"]
        for variant, power in confirming[metric]:
            powers = [one.value for one in own if one.variant == power]
            number = next((one for one in own if one.higher_is_leakier is not None and variant in ("", one.variant)),
                          None)  # fmt: skip
            if number is not None and powers and powers[0] >= POWER:
                yield number.evaluator or metric, number


@cache
def _confirming() -> Confirming:
    """Return the metrics of independent judges, by their cards."""
    from mibench.planning.catalogue import entries

    cards = [one.card for one in entries("metric")]
    return {card.name: card.confirms for card in cards if isinstance(card, MetricCard) and card.confirms}


def above_control(one: Score) -> bool:
    """Return whether the interval of a number's lift over its control lies above zero, whatever its null says."""
    return one.status == "ok" and one.lift_low > 0
