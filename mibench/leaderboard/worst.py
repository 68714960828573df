"""The worst case of a defended victim: the strongest of several attacks, picked on targets on which it is not reported.

The choice and its interval are those of :mod:`mibench.leaderboard.selection`. Only cells with values by target take
part, and only those whose judges and control agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mibench.leaderboard.groups import Group
from mibench.leaderboard.numbers import ByTarget, by_target, in_common
from mibench.leaderboard.selection import cross_fitted, strongest
from mibench.leaderboard.statistics import LEAST_TARGETS, Spread

#: What cells of one worst case have in common, beside task and access.
SHARED = ("dataset", "setting", "target", "defense", "budget", "evaluation", "control")


@dataclass(frozen=True, kw_only=True)
class WorstCase:
    """The worst case of one victim before all attacks of one access level.

    Attributes:
        groups: The groups that it was picked from, one per attack and its options.
        options: What of the defense and the setting differs from the defaults.
        picked: The attacks that were picked, the most frequent first.
        spread: Mean lift of the picked attacks over targets by which they were not picked, with its interval.
        unit: Its unit.
    """

    groups: Sequence[Group]
    options: Sequence[str]
    picked: Sequence[str]
    spread: Spread
    unit: str

    @property
    def lift(self) -> float:
        """Mean lift over targets by which the attacks were not picked."""
        return self.spread.mean

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
    same: dict[tuple[str, ...], list[tuple[Group, ByTarget]]] = {}
    for group in groups:
        lifts = headline_lifts(group)
        if lifts is not None and group.facts["access"] != "none":
            shared = json.dumps([group.config.get(axis) for axis in SHARED], sort_keys=True)
            same.setdefault((group.facts["task"], group.facts["access"], shared), []).append((group, lifts))
    found = [_worst(own, options or {}) for own in same.values() if len({one.facts["attack"] for one, _ in own}) > 1]
    kept = [one for one in found if one is not None]
    return sorted(kept, key=lambda one: (*(one.facts[name] for name in ORDER), one.lift))


ORDER = ("task", "dataset", "setting", "target", "access", "budget")


def headline_lifts(group: Group) -> ByTarget | None:
    """Return the lift of the task's headline by seed and target; None where its rows do not tell."""
    number = group.headline
    return None if number is None or number.score.status != "ok" else by_target(number)


def _worst(own: Sequence[tuple[Group, ByTarget]], options: Mapping[str, Sequence[str]]) -> WorstCase | None:
    seeds, targets, tables = in_common([lifts for _, lifts in own])
    if not seeds or len(targets) < LEAST_TARGETS:
        return None
    groups = [group for group, _ in own]
    headline = groups[0].headline
    assert headline is not None
    selected = cross_fitted(tables, strongest, headline.score.share)
    names = [groups[place].facts["attack"] for place, _ in selected.shares]
    said = [one for one in options.get(groups[0].group_id, ()) if one.startswith(("defense.", "setting."))]
    return WorstCase(
        groups=groups,
        options=said,
        picked=list(dict.fromkeys(names)),
        spread=selected.spread,
        unit=headline.score.unit,
    )
