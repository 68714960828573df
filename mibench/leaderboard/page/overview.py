"""The overview: what stands in the page itself and is drawn at once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mibench.card import AttackCard, DefenseCard
from mibench.leaderboard.language import WORDS
from mibench.leaderboard.page.cells import Table
from mibench.leaderboard.page.columns import number, rounded
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.curves import effort_curves
from mibench.leaderboard.page.findings import findings
from mibench.leaderboard.page.fronts import front_shares
from mibench.leaderboard.page.group_columns import group_columns
from mibench.leaderboard.page.names import card_in, headline_name
from mibench.leaderboard.page.rankings import Differences, Ranked, attack_ranks, defense_rankings
from mibench.leaderboard.page.strips import strips
from mibench.leaderboard.page.views import ACCESSES, View
from mibench.leaderboard.pictures import may_show
from mibench.leaderboard.verdicts import independent
from mibench.leaderboard.worst import WorstCase
from mibench.version import __version__

#: Borders of the seven steps of colour: of shares, and of decibels.
SHARES: Sequence[float] = (-0.05, 0.05, 0.2, 0.4, 0.6, 0.8)
DECIBELS: Sequence[float] = (-1, 1, 2, 4, 7, 10)

#: Metrics of an independent judge of class images, by the name of their column.
JUDGES: Mapping[str, str] = {"agreed": "agreed_accuracy", "verified": "verification_rate"}


def overview(sources: Sources) -> dict[str, Any]:
    """Return the overview as JSON data."""
    axes = sources.axes
    shown = [_view(sources, place) for place in range(len(sources.views))]
    return {
        "version": __version__,
        "rows": sources.rows,
        "local": sources.local,
        "counts": counts(sources),
        "strips": strips(sources),
        "findings": findings(sources),
        "verdicts": [
            {"word": one.word, "mark": one.mark, "tone": one.tone, "meaning": one.meaning} for one in WORDS.values()
        ],
        "datasets": [
            {"name": name, "title": axes.title("dataset", name), "mayShow": may_show(axes.config("dataset", name))}
            for name in axes.datasets
        ],
        "attacks": [_attack(sources, name) for name in axes.attacks],
        "defenses": [_defense(sources, name) for name in axes.defenses],
        "accesses": dict(ACCESSES),
        "views": shown,
        "groups": group_columns(sources),
    }


def counts(sources: Sources) -> dict[str, int]:
    """Return how much was measured: components and runs of groups with a number, and numbers beside a control."""
    measured = [one for one in sources.groups if one.measured]
    return {
        "datasets": len({one.facts["dataset"] for one in measured}),
        "attacks": len({one.facts["attack"] for one in measured}),
        "defenses": len({one.facts["defense"] for one in measured} - {"none"}),
        "runs": sum(cell.status == "ok" for one in measured for cell in one.cells),
        "numbers": sum(
            number.seeds > 0 and number.score.control == number.score.control
            for one in measured
            for number in one.numbers
        ),
    }


def _attack(sources: Sources, name: str) -> dict[str, Any]:
    config = sources.axes.config("attack", name)
    card = card_in(config, "attack")
    family = card.family if isinstance(card, AttackCard) else ""
    title = sources.axes.title("attack", name)
    return {"name": name, "title": title, "family": family, "floor": family == "floor"}


def _defense(sources: Sources, name: str) -> dict[str, Any]:
    card = card_in(sources.axes.config("defense", name), "defense")
    hooks = ", ".join(card.hooks) if isinstance(card, DefenseCard) else ""
    return {"name": name, "title": sources.axes.title("defense", name), "hooks": hooks}


# Views


def _view(sources: Sources, place: int) -> dict[str, Any]:
    view, table, axes = sources.views[place], sources.tables[place], sources.axes
    records = [one for one in sources.in_view(place) if one.score is not None]
    headline = records[0].group.headline
    assert headline is not None
    paired = sources.paired(place)
    defenses, attacks = Differences(paired, "defense"), Differences(paired, "attack")
    rankings = {axes.attack[name]: defense_rankings(name, table, records, defenses) for name in table.attacks}
    ranks = attack_ranks(records, attacks)
    unit = headline.score.unit
    return {
        "id": view.id,
        "dataset": axes.dataset[view.facts["dataset"]],
        "task": view.facts["task"],
        "sees": view.sees,
        "under": view.under,
        "metric": headline_name(headline.key),
        "unit": unit,
        "bins": list(bins(unit, [one.lift for one in records])),
        "accesses": [name for name in ACCESSES if any(one.group.facts["access"] == name for one in records)],
        "paired": paired,
        "attacks": [axes.attack[name] for name in table.attacks],
        "defenses": [axes.defense[name] for name in table.defenses],
        "alone": [axes.attack[name] for name in table.alone],
        "cells": [
            [axes.attack[attack], axes.defense[defense], [one.place for one in own]]
            for (attack, defense), own in sorted(table.cells.items())
        ],
        "empty": [
            [axes.attack[attack], axes.defense[defense], word, reason]
            for (attack, defense), (word, reason) in sorted(table.empty.items())
        ],
        "accuracy": {
            axes.defense[name]: rounded(ends) for name, ends in sorted(table.accuracies.items())
        },
        "rankings": {attack: _rankings(sources, own) for attack, own in rankings.items() if own},
        "attackRanks": [[one.record.place, one.best, one.last, one.reason] for one in ranks],
        "extra": _extra(ranks),
        "front": _fronts(table),
        "curves": [[axes.attack[name], [one.place for one in own]] for name, own in effort_curves(sources, place)],
        "worst": [_worst(sources, case) for case in _cases(sources, view)],
    }  # fmt: skip


def bins(unit: str, lifts: Sequence[float]) -> Sequence[float]:
    """Return the six borders of the seven steps of colour: those of shares and decibels, else those of shares, scaled.

    >>> bins("", [0.4, 0.9]), bins("nats", [3.0, -8.0])
    ((-0.05, 0.05, 0.2, 0.4, 0.6, 0.8), (-0.4, 0.4, 1.6, 3.2, 4.8, 6.4))
    """
    if unit == "dB":
        return DECIBELS
    largest = max((abs(one) for one in lifts if math.isfinite(one)), default=1.0)
    if unit == "" and largest <= 1:
        return SHARES
    return tuple(float(f"{border * largest:.2g}") for border in SHARES)


def _rankings(sources: Sources, own: Mapping[int, tuple[Sequence[Ranked], Sequence[str]]]) -> dict[str, Any]:
    """Return the rankings of one attack by loss; one that is the same as at a smaller loss names that one."""
    found: dict[str, Any] = {}
    for loss, (ranked, outside) in own.items():
        said = {"rows": [_ranked(one) for one in ranked], "outside": [sources.axes.defense[name] for name in outside]}
        found[str(loss)] = next((before for before, other in found.items() if other == said), said)
    return found


def _ranked(one: Ranked) -> list[Any]:
    found = one.difference
    ends = rounded([found.mean, found.low, found.high]) if found else [None] * 3
    return [one.record.place, one.best, one.last, *ends, one.word]


def _extra(ranks: Sequence[Ranked]) -> list[list[Any]]:
    """Return what judges with power say of the ranked attacks, by the name of the column."""
    found = []
    for name, metric in JUDGES.items():
        column = []
        for one in ranks:
            said = [score.value for _, score in independent([number.score for number in one.record.group.numbers])
                    if score.metric == metric]  # fmt: skip
            column.append(number(said[0]) if said else None)
        if any(value is not None for value in column):
            found.append([name, column])
    return found


def _fronts(table: Table) -> dict[int, float | int | None]:
    shares: dict[int, float | int | None] = {}
    for attack in table.attacks:
        own = [one for (name, _), row in sorted(table.cells.items()) if name == attack for one in row]
        shares |= {place: number(share) for place, share in front_shares(own).items()}
    return shares


def _cases(sources: Sources, view: View) -> list[WorstCase]:
    own = {one.group_id for one in view.groups}
    return [case for case in sources.cases if case.groups[0].group_id in own]


def _worst(sources: Sources, case: WorstCase) -> list[Any]:
    """Return defense, lift with its interval, attacks, accuracy, the setting of the defense and the group shown."""
    axes = sources.axes
    group = next(one for one in case.groups if one.facts["attack"] == case.picked[0])
    record = sources.records[sources.place_of(group.group_id)]
    lift, low, high, accuracy = rounded([case.lift, case.spread.low, case.spread.high, group.accuracy])
    attacks = [axes.attack[name] for name in case.picked]
    return [axes.defense[record.defense], lift, low, high, attacks, accuracy, record.level, record.place]
