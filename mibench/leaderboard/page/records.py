"""Every group as the page holds it: its view, the setting of its defense, its attacker, its number with honest ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from mibench.leaderboard.eligible import ineligible
from mibench.leaderboard.groups import Group
from mibench.leaderboard.identical import identical
from mibench.leaderboard.page.levels import adaptive, attack_levels, attacker, defense_level, strengths, usual
from mibench.leaderboard.page.reproduction import Reproduction
from mibench.leaderboard.page.views import View, has_lift
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.statistics import LEAST_TARGETS, NAN, exact


@dataclass(frozen=True, kw_only=True)
class Record:
    """One group.

    Attributes:
        group: The group.
        place: Its place on the page.
        view: Place of its view; -1 where that has no number.
        level: What of its defense differs from the defaults.
        strength: How strong that is among the settings of this defense in the view, 0 for the weakest.
        attack_level: In what its attacker differs from the usual one of this name in the view.
        adaptive: Whether its attacker knows the defense.
        usual: Whether its attacker is the usual one.
        score: Its number, where it has one with a lift.
        twin: The weaker setting of the defense with which all its numbers agree to the last bit; empty where there is
            none. Both are one measurement, and a table shows the weaker one.
        barred: Why its setting is not compared with other defenses (:mod:`mibench.leaderboard.eligible`); empty where
            it is.
    """

    group: Group
    place: int
    view: int
    level: str
    strength: int
    attack_level: str
    adaptive: bool
    usual: bool
    score: Score | None
    twin: str = ""
    barred: str = ""

    @property
    def attack(self) -> str:
        """Name of the attack."""
        return self.group.facts["attack"]

    @property
    def defense(self) -> str:
        """Name of the defense."""
        return self.group.facts["defense"]

    @property
    def lift(self) -> float:
        """The lift; NaN where there is none."""
        return NAN if self.score is None else self.score.lift

    @cached_property
    def accuracy(self) -> float:
        """How often the defended victim is right; NaN where that was not measured."""
        return self.group.accuracy

    @property
    def known(self) -> bool:
        """Whether the lift has an interval."""
        return self.score is not None and not math.isnan(self.score.lift_low)


def records_of(groups: Sequence[Group], views: Sequence[View], made: Mapping[str, Reproduction]) -> list[Record]:
    """Return a record of every group, in their order."""
    levels = {one.group_id: defense_level(made[one.group_id].options) for one in groups}
    barred = {one.group_id: ineligible(one) for one in groups}
    of_view = {one.group_id: place for place, view in enumerate(views) for one in view.groups}
    strength: dict[str, int] = {}
    attacks: dict[str, str] = {}
    usually: set[str] = set()
    twins: dict[str, str] = {}
    for view in views:
        for own in _by(view.groups, "defense"):
            strength |= strengths(own, levels)
            for mine in _by(own, "attack"):
                twins |= twins_of(mine, strength, levels)
        for own in _by(view.groups, "attack"):
            there = [one for one in own if has_lift(one)] or own
            base = usual(there)
            attacks |= attack_levels(own, base)
            usually |= {one.group_id for one in own if attacker(one) == base}
    return [
        Record(
            group=one,
            place=place,
            view=of_view.get(one.group_id, -1),
            level=levels[one.group_id]
            + (f" (all numbers as at {twins[one.group_id]})" if one.group_id in twins else "")
            + (f" ({reason})" if (reason := barred[one.group_id]) else ""),
            strength=strength.get(one.group_id, 0),
            attack_level=attacks.get(one.group_id, ""),
            adaptive=one.group_id in of_view and one.facts["defense"] != "none" and adaptive(one),
            usual=one.group_id in usually,
            score=certain(one) if has_lift(one) else None,
            twin=twins.get(one.group_id, ""),
            barred=barred[one.group_id],
        )
        for place, one in enumerate(groups)
    ]


def twins_of(groups: Sequence[Group], strength: Mapping[str, int], levels: Mapping[str, str]) -> dict[str, str]:
    """Return by id the weaker setting that a setting of a defense does not differ from in any number.

    Args:
        groups: The groups of one attack and one defense.
        strength: By id how strong the setting is.
        levels: By id the setting in words.
    """
    found: dict[str, str] = {}
    for own in identical(groups):
        weakest, *others = sorted(own, key=lambda one: (strength[one.group_id], one.group_id))
        stronger = [one for one in others if strength[one.group_id] > strength[weakest.group_id]]
        found |= {one.group_id: levels[weakest.group_id] or "the default" for one in stronger}
    return found


def _by(groups: Sequence[Group], fact: str) -> list[list[Group]]:
    found: dict[str, list[Group]] = {}
    for one in groups:
        found.setdefault(one.facts[fact], []).append(one)
    return list(found.values())


def certain(group: Group) -> Score:
    """Return the headline of a group; intervals without width of rows of the first schema get exact ends.

    In such rows all targets agreed, which proves little where they are ten. Value and control, which are shares of the
    targets, get the ends of Clopper and Pearson; those of the lift are made of both (Newcombe, 1998). Of a number that
    is no share nothing can be said: its lift has no interval then.
    """
    number = group.headline
    assert number is not None
    one = number.score
    if not group.old or one.lift_low != one.lift_high:
        return one
    targets = int(group.config["budget"]["targets"])
    if targets < LEAST_TARGETS or one.unit or not (0 <= one.value <= 1 and 0 <= one.control <= 1):
        return replace(one, lift_low=NAN, lift_high=NAN)
    (low, high), (floor, ceiling) = (exact(round(share * targets), targets) for share in (one.value, one.control))
    sign = 1 if one.higher_is_leakier else -1
    below, above = math.hypot(one.value - low, ceiling - one.control), math.hypot(high - one.value, one.control - floor)
    below, above = (below, above) if sign > 0 else (above, below)
    return replace(
        one,
        ci_low=min(low, one.ci_low),
        ci_high=max(high, one.ci_high),
        lift_low=max(-1.0, one.lift - below),
        lift_high=min(1.0, one.lift + above),
    )


def status_of(group: Group) -> tuple[str, str]:
    """Return the status of a group and its reason: ``ok``, ``vacuous``, ``withheld``, ``skipped`` or ``failed``."""
    if group.measured:
        return "ok", ""
    cell = next((one for one in group.cells if one.status == "failed"), group.cells[0])
    if cell.status == "failed":
        return "failed", cell.reason
    if cell.reason.startswith("Vacuous:"):
        return "vacuous", cell.reason
    return ("withheld" if " withholds " in cell.reason else "skipped"), cell.reason
