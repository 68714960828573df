"""The worst case of a defended victim: the strongest of several attacks, picked on half of the targets.

Whoever reports the best of many attacks on the targets by which it was picked reports luck as well. Here the attack of
the highest lift over one half of the targets is reported on the other half, and the two ways round are averaged: a
number without a parameter, by which defenses are ranked.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mibench.card import HEADLINES
from mibench.leaderboard.groups import Group, Number

#: What cells of one worst case have in common, beside task and access.
SHARED = ("dataset", "setting", "target", "defense", "budget")


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The worst case of one victim before all attacks of one access level.

    Attributes:
        groups: The groups that it was picked from, one per attack and its options.
        options: What of the defense and the setting differs from the defaults.
        picked: The attacks that were picked, on either half.
        lift: Mean lift of the picked attacks over the half by which they were not picked.
        unit: Its unit.
    """

    groups: Sequence[Group]
    options: Sequence[str]
    picked: Sequence[str]
    lift: float
    unit: str

    @property
    def facts(self) -> Mapping[str, str]:
        """What all its groups share."""
        return self.groups[0].facts

    @property
    def attacks(self) -> int:
        """Number of different attacks."""
        return len({one.facts["attack"] for one in self.groups})


def worst_cases(groups: Sequence[Group], options: Mapping[str, Sequence[str]] | None = None) -> list[WorstCase]:
    """Return the worst case of every victim that two or more attacks of one access level were run on, worst last.

    Args:
        groups: The groups.
        options: By group id, what differs from the defaults.
    """
    same: dict[tuple[str, ...], list[Group]] = {}
    for group in groups:
        if group.measured and group.facts["access"] != "none" and halves(group) is not None:
            shared = json.dumps([group.config.get(axis) for axis in SHARED], sort_keys=True)
            same.setdefault((group.facts["task"], group.facts["access"], shared), []).append(group)
    found = [_worst(own, options or {}) for own in same.values() if len({one.facts["attack"] for one in own}) > 1]
    return sorted(found, key=lambda one: (*(one.facts[name] for name in ORDER), one.lift))


ORDER = ("task", "dataset", "setting", "target", "access", "budget")


def halves(group: Group) -> Number | None:
    """Return the task's headline number where its lift is known over both halves of the targets."""
    number = group.headline if group.facts["task"] in HEADLINES else None
    known = number is not None and not math.isnan(number.score.lift_even + number.score.lift_odd)
    return number if known else None


def picked(lifts: Sequence[tuple[float, float]]) -> tuple[int, int, float]:
    """Return which pair is highest on its first half, which on its second, and their mean on the other halves.

    >>> picked([(0.75, 0.25), (0.25, 0.5)])
    (0, 1, 0.25)
    """
    even = max(range(len(lifts)), key=lambda one: lifts[one][0])
    odd = max(range(len(lifts)), key=lambda one: lifts[one][1])
    return even, odd, (lifts[even][1] + lifts[odd][0]) / 2


def _worst(groups: Sequence[Group], options: Mapping[str, Sequence[str]]) -> WorstCase:
    scores = [number.score for one in groups if (number := halves(one)) is not None]
    even, odd, lift = picked([(score.lift_even, score.lift_odd) for score in scores])
    names = [groups[one].facts["attack"] for one in (even, odd)]
    own = [one for one in options.get(groups[0].group_id, ()) if one.startswith(("defense.", "setting."))]
    picks = list(dict.fromkeys(names))
    return WorstCase(groups=groups, options=own, picked=picks, lift=lift, unit=scores[even].unit)
