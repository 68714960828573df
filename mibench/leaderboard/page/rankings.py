"""Ranks in bands: defenses at the same utility before one attack, and attacks on the undefended victim."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mibench.leaderboard.compare import ALPHA, compare
from mibench.leaderboard.page.cells import Table, strongest
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.statistics import NAN, holm

#: Losses of accuracy within which defenses are compared, in points of percent; the last one allows any.
LOSSES = (2, 5, 10, 100)

#: Rounding of shares that stand for counts.
SLACK = 1e-9


@dataclass(frozen=True)
class Difference:
    """How much more one group leaks than another.

    Attributes:
        mean: Difference of the lifts.
        low: Lower end of its 95 % interval; NaN where nothing is known.
        high: Upper end.
        p: p-value of a paired comparison; NaN where it is not paired.
        reason: Why it decides nothing; empty where it may.
    """

    mean: float
    low: float
    high: float
    p: float = NAN
    reason: str = ""


@dataclass(frozen=True)
class Ranked:
    """A group with its ranks.

    Attributes:
        record: The group.
        best: The best rank that the comparisons leave open, from 1.
        last: The worst.
        difference: To the undefended victim; None where there is nothing to compare with.
        word: ``less``, ``more`` or ``undecided``, seen from this group.
        reason: Why it is not ranked; empty where it is.
    """

    record: Record
    best: int
    last: int
    difference: Difference | None = None
    word: str = "undecided"
    reason: str = ""


class Differences:
    """Differences of the groups of one view, each computed once.

    Args:
        paired: Whether values by target are known of all of them. Where not, the half-widths of both intervals are
            added as independent ones are, and nothing is corrected for the number of comparisons.
        by: The axis in which they differ.
    """

    def __init__(self, paired: bool, by: str) -> None:
        self.paired = paired
        self.by = by
        self._known: dict[tuple[str, str], Difference] = {}

    def of(self, left: Record, right: Record) -> Difference:
        """Return left minus right."""
        key = (left.group.group_id, right.group.group_id)
        if key not in self._known:
            found = self._paired(left, right) if self.paired else unpaired(left, right)
            self._known[key] = found
            self._known[key[::-1]] = Difference(-found.mean, -found.high, -found.low, found.p, found.reason)
        return self._known[key]

    def _paired(self, left: Record, right: Record) -> Difference:
        found = compare(left.group, right.group, self.by)
        spread = found.spread
        return Difference(spread.mean, spread.low, spread.high, found.p, found.reason)

    def words(self, pairs: Sequence[tuple[Record, Record]]) -> list[str]:
        """Return ``less``, ``more`` or ``undecided`` of every pair, for the left one, with the table's p-values."""
        found = [self.of(left, right) for left, right in pairs]
        if not self.paired:
            return ["less" if one.high < 0 else "more" if one.low > 0 else "undecided" for one in found]
        adjusted = holm([NAN if one.reason else one.p for one in found])
        return [
            "undecided" if one.reason or not p < ALPHA else "more" if one.mean > 0 else "less"
            for one, p in zip(found, adjusted, strict=True)
        ]


def unpaired(left: Record, right: Record) -> Difference:
    """Return the difference of two lifts whose targets are not known, with an interval of both half-widths."""
    one, other = left.score, right.score
    if one is None or other is None:
        return Difference(NAN, NAN, NAN)
    mean = one.lift - other.lift
    low = mean - math.hypot(one.lift - one.lift_low, other.lift_high - other.lift)
    high = mean + math.hypot(one.lift_high - one.lift, other.lift - other.lift_low)
    return Difference(mean, low, high)


def bands(
    records: Sequence[Record], differences: Differences, base: Record | None = None, leakiest: bool = False
) -> list[Ranked]:
    """Return the ranks that comparisons of every two leave open, best first: those that leak least, or most.

    The best rank is one more than the number of those that are clearly better, the worst is the number of all less
    those that are clearly worse.

    Args:
        records: The groups.
        differences: Their differences.
        base: What all are compared with too.
        leakiest: Whether the one that leaks most is the best.
    """
    pairs = [(one, other) for place, one in enumerate(records) for other in records[place + 1 :]]
    with_base = [(one, base) for one in records] if base else []
    words = differences.words([*pairs, *with_base])
    better, worse = [0] * len(records), [0] * len(records)
    places = {one.group.group_id: place for place, one in enumerate(records)}
    for (one, other), word in zip(pairs, words, strict=False):
        if word == "undecided":
            continue
        ahead, behind = (one, other) if (word == "more") == leakiest else (other, one)
        worse[places[ahead.group.group_id]] += 1
        better[places[behind.group.group_id]] += 1
    to_base = words[len(pairs) :] or ["undecided"] * len(records)
    found = [
        Ranked(
            one,
            1 + better[place],
            len(records) - worse[place],
            differences.of(one, base) if base else None,
            to_base[place],
            _unranked(one, records, differences),
        )
        for place, one in enumerate(records)
    ]
    sign = -1 if leakiest else 1
    return sorted(
        found,
        key=lambda one: (bool(one.reason), one.best, one.last, sign * one.record.lift, one.record.group.group_id),
    )


def _unranked(record: Record, records: Sequence[Record], differences: Differences) -> str:
    """Return why a group is compared with none of the others; empty where it is with one."""
    if not record.known:
        return "no interval"
    reasons = {differences.of(record, one).reason for one in records if one is not record}
    return min(reasons) if reasons and "" not in reasons else ""


def defense_rankings(
    attack: str, table: Table, records: Sequence[Record], differences: Differences
) -> dict[int, tuple[list[Ranked], list[str]]]:
    """Return, by loss of accuracy, how the defenses rank before an attack, and those without a setting inside.

    Of every defense the strongest setting counts whose accuracy lies within the loss of the undefended victim's: chosen
    by accuracy and by the card's direction, never by how well it did. Settings that are not compared
    (:mod:`mibench.leaderboard.eligible`) are not inside. Where the accuracy of either is not known, any other is.
    Nothing comes back for an attack that was not run without a defense and with two of them.
    """
    undefended = table.cells.get((attack, "none"))
    defended = [defense for defense in table.defenses if defense != "none" and (attack, defense) in table.cells]
    if not undefended or len(defended) < 2:
        return {}
    base = undefended[0]
    found: dict[int, tuple[list[Ranked], list[str]]] = {}
    for loss in LOSSES:
        inside: list[Record] = []
        outside: list[str] = []
        for defense in defended:
            kept = [
                one for one in table.cells[attack, defense]
                if one.known and not one.barred and not one.accuracy < base.accuracy - loss / 100 - SLACK
            ]  # fmt: skip
            if kept:
                inside.append(kept[-1])
            else:
                outside.append(defense)
        found[loss] = (bands(inside, differences, base), outside)
    return found


def attack_ranks(records: Sequence[Record], differences: Differences) -> list[Ranked]:
    """Return how the attacks on the undefended victim rank, leakiest first; floors stand among them."""
    own: dict[str, list[Record]] = {}
    for one in records:
        if one.defense == "none" and one.score is not None:
            own.setdefault(one.attack, []).append(one)
    chosen = [strongest(one)[0] for _, one in sorted(own.items())]
    return bands(chosen, differences, leakiest=True) if len(chosen) > 1 else []
