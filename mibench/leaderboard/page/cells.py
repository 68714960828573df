"""One view as a table of attacks and defenses: what stands in it, in which order, and what is missing and why."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from mibench.leaderboard.page.records import Record, status_of
from mibench.leaderboard.statistics import NAN

#: What a cell that no number can stand in says.
EMPTY = ("vacuous", "withheld", "failed")


@dataclass(frozen=True)
class Table:
    """A view as a table.

    Attributes:
        attacks: Its attacks, the strongest on the undefended victim first.
        defenses: Its defenses: ``none`` first, then by mean lift, the lowest first.
        alone: Attacks that were run on the undefended victim only, where others were not.
        cells: By attack and defense the groups from the weakest setting to the strongest, one of each; settings whose
            numbers are identical stand there once.
        empty: By attack and defense why no number can stand there: word and reason.
    """

    attacks: Sequence[str]
    defenses: Sequence[str]
    alone: Sequence[str]
    cells: Mapping[tuple[str, str], Sequence[Record]]
    empty: Mapping[tuple[str, str], tuple[str, str]]

    @property
    def accuracies(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest accuracy of every defended victim, where any was measured."""
        found: dict[str, list[float]] = {}
        for (_, defense), own in self.cells.items():
            found.setdefault(defense, []).extend(one.accuracy for one in own)
        known = {defense: [one for one in own if not math.isnan(one)] for defense, own in found.items()}
        return {defense: (min(own), max(own)) for defense, own in known.items() if own}


def table_of(records: Sequence[Record], refused: Mapping[tuple[str, str], tuple[str, str]]) -> Table:
    """Return the table of one view.

    Args:
        records: The records of its groups.
        refused: By attack and defense why none of their cells can be run in this setting.
    """
    cells: dict[tuple[str, str], list[Record]] = {}
    for one in records:
        if one.score is not None and not one.twin and one.group.facts["access"] != "none":
            cells.setdefault((one.attack, one.defense), []).append(one)
    chosen = {pair: strongest(own) for pair, own in cells.items()}
    met: dict[str, set[str]] = {}
    for attack, defense in chosen:
        met.setdefault(attack, set()).add(defense)
    both = [attack for attack, own in met.items() if own != {"none"}]
    alone = [attack for attack in met if attack not in both] if len(both) > 1 else []
    attacks = [attack for attack in met if attack not in alone]

    def undefended(attack: str) -> float:
        own = chosen.get((attack, "none"))
        return own[0].lift if own else -math.inf

    lifts: dict[str, list[float]] = {}
    for (attack, defense), own in chosen.items():
        if attack in attacks:
            lifts.setdefault(defense, []).extend(one.lift for one in own)
    order = sorted(lifts, key=lambda defense: (defense != "none", fmean(lifts[defense]), defense))
    empty = {
        (attack, defense): refused[attack, defense]
        for attack in attacks
        for defense in order
        if (attack, defense) not in chosen and (attack, defense) in refused
    }
    return Table(
        attacks=sorted(attacks, key=lambda attack: (-undefended(attack), attack)),
        defenses=order,
        alone=sorted(alone, key=lambda attack: (-undefended(attack), attack)),
        cells={pair: own for pair, own in chosen.items() if pair[0] in attacks},
        empty=empty,
    )


def strongest(records: Sequence[Record]) -> list[Record]:
    """Return of every setting of one defense the group that the table shows, from weak to strong.

    That is the usual attacker, or one who knows the defense where that one gets more; any other attacker stands there
    only where neither was run at any setting, and then the strongest of them.
    """
    fair = [one for one in records if one.usual or one.adaptive] or records
    best: dict[int, Record] = {}
    for one in fair:
        before = best.get(one.strength)
        if before is None or (one.lift, before.group.group_id) > (before.lift, one.group.group_id):
            best[one.strength] = one
    return [best[strength] for strength in sorted(best)]


def refusals(records: Sequence[Record]) -> dict[tuple[str, str, str, str], tuple[str, str]]:
    """Return why cells of an attack and a defense cannot be run, by dataset, setting, attack and defense."""
    found: dict[tuple[str, str, str, str], tuple[str, str]] = {}
    for one in records:
        word, reason = status_of(one.group)
        facts = one.group.facts
        if word in EMPTY:
            found.setdefault((facts["dataset"], facts["setting"], facts["attack"], facts["defense"]), (word, reason))
    return found


def accuracy_of(record: Record) -> tuple[float, float, float]:
    """Return the accuracy of the defended victim with its interval; NaN where it was not measured."""
    number = record.group.utility
    if number is None:
        return NAN, NAN, NAN
    return number.score.value, number.score.ci_low, number.score.ci_high
