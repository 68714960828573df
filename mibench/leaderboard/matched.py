"""Defenses at matched utility: of the levels that keep the victim's accuracy, the one that protects best.

Which levels keep it is decided by accuracy alone; a defense's baselines, and levels at which the model is right no more
often than naming the most frequent class, are none of them (:mod:`mibench.leaderboard.eligible`). Which of those
protects best before the strongest of several attacks is a choice, made on targets on which it is not reported
(:mod:`mibench.leaderboard.selection`), so that a defense with many levels has no advantage.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from mibench.leaderboard.eligible import ineligible
from mibench.leaderboard.groups import Group
from mibench.leaderboard.numbers import ByTarget, in_common
from mibench.leaderboard.selection import cross_fitted, weakest_of_strongest
from mibench.leaderboard.statistics import LEAST_TARGETS, NAN, Spread
from mibench.leaderboard.worst import SHARED, headline_lifts

#: How much less accurate than the undefended victim a defended one may be to count as matched.
MATCHED = 0.05


@dataclass(frozen=True, kw_only=True)
class Matched:
    """One defense at matched utility.

    Attributes:
        groups: Its groups that keep the accuracy, of all levels and attacks; empty where no level does.
        defense: Its name.
        facts: Dataset, setting, target, task, access and budget, as ``name=value``.
        levels: Number of levels that keep the accuracy.
        chosen: The groups of the levels and attacks that were chosen, the most frequent first.
        spread: Lift of the strongest attack at the chosen level over targets by which it was not chosen.
        unit: Its unit.
    """

    groups: Sequence[Group]
    defense: str
    facts: Sequence[str]
    levels: int
    chosen: Sequence[Group]
    spread: Spread
    unit: str


def matched(groups: Sequence[Group], within: float = MATCHED) -> list[Matched]:
    """Return every defense of every victim at matched utility, the least leaky first.

    Args:
        groups: The groups.
        within: How much less accurate than the undefended victim, trained alike, a defended one may be.
    """
    victims: dict[str, dict[str, dict[str, list[tuple[Group, ByTarget, str]]]]] = {}
    for group in groups:
        lifts = headline_lifts(group)
        if lifts is None or group.utility is None or group.facts["access"] == "none":
            continue
        barred = ineligible(group)
        kept = [group.config.get(axis) for axis in SHARED if axis != "defense"]
        shared = json.dumps([group.facts["task"], group.facts["access"], *kept], sort_keys=True)
        level = json.dumps(group.config.get("defense"), sort_keys=True)
        own = victims.setdefault(shared, {}).setdefault(group.facts["defense"], {})
        own.setdefault(level, []).append((group, lifts, barred))
    found = []
    for defenses in victims.values():
        bare = [one for own in defenses.get("none", {}).values() for one, *_ in own]
        if not bare:
            continue
        least = max(one.accuracy for one in bare) - within
        for defense, levels in defenses.items():
            keeping = [
                [(one, lifts) for one, lifts, _ in own]
                for own in levels.values()
                if max(one.accuracy for one, *_ in own) >= least and not all(barred for *_, barred in own)
            ]
            found.append(_matched(defense, bare[0], keeping))
    return sorted(found, key=lambda one: (*one.facts, one.spread.mean if one.levels else float("inf"), one.defense))


def _matched(defense: str, bare: Group, levels: Sequence[Sequence[tuple[Group, ByTarget]]]) -> Matched:
    names = ("task", "dataset", "setting", "target", "access", "budget")
    facts = [f"{name}={bare.facts[name]}" for name in names]
    flat = [one for own in levels for one in own]
    nothing = Matched(groups=[group for group, _ in flat], defense=defense, facts=facts, levels=len(levels), chosen=[],
                      spread=Spread(NAN, NAN, NAN, NAN, 0, 0), unit="")  # fmt: skip
    if not flat:
        return nothing
    seeds, targets, tables = in_common([lifts for _, lifts in flat])
    headline = flat[0][0].headline
    if not seeds or len(targets) < LEAST_TARGETS or headline is None:
        return nothing
    places = iter(range(len(flat)))
    selected = cross_fitted(tables, weakest_of_strongest([[next(places) for _ in own] for own in levels]),
                            headline.score.share)  # fmt: skip
    return Matched(
        groups=nothing.groups,
        defense=defense,
        facts=facts,
        levels=len(levels),
        chosen=[flat[place][0] for place, _ in selected.shares],
        spread=selected.spread,
        unit=headline.score.unit,
    )
