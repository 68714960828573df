"""The groups as columns: what the overview holds of each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mibench.leaderboard.language import WORDS, order
from mibench.leaderboard.page.cells import accuracy_of
from mibench.leaderboard.page.columns import columns, rounded
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.records import status_of


def verdict_of(word: str) -> int:
    """Return the place of a verdict among :data:`mibench.leaderboard.language.WORDS`; -1 for none."""
    return order(word) if word in WORDS else -1


def group_columns(sources: Sources) -> dict[str, Any]:
    """Return the columns of the groups."""
    axes, records = sources.axes, sources.records
    scores = [one.score for one in records]
    told = {name: rounded([float("nan") if one is None else getattr(one, field) for one in scores])
            for name, field in NUMBERS.items()}  # fmt: skip
    accuracy = [accuracy_of(one) for one in records]
    cost = {
        name: rounded([one.group.cost[field] for one in records])
        for name, field in (("queries", "queries"), ("gradients", "gradient_evals"))
    }
    statuses = [status_of(one.group) for one in records]
    rows: dict[str, Sequence[Any]] = {
        "id": [one.group.group_id for one in records],
        "view": [one.view for one in records],
        "dataset": [axes.dataset[one.group.facts["dataset"]] for one in records],
        "attack": [axes.attack[one.attack] for one in records],
        "defense": [axes.defense[one.defense] for one in records],
        "access": [one.group.facts["access"] for one in records],
        "level": [one.level for one in records],
        "attackLevel": [one.attack_level for one in records],
        "adaptive": [int(one.adaptive) for one in records],
        "strength": [one.strength for one in records],
        **told,
        "verdict": [-1 if one is None else verdict_of(one.evidence) for one in scores],
        "confirmed": ["" if one is None else one.confirmed_by for one in scores],
        "n": [0 if one is None else one.n for one in scores],
        "seeds": [sum(cell.status == "ok" for cell in one.group.cells) for one in records],
        **cost,
        **{name: rounded([one[place] for one in accuracy]) for place, name in enumerate(ACCURACY)},
        "status": [status for status, _ in statuses],
        "reason": [reason for _, reason in statuses],
    }
    return columns(rows)


#: Columns of a group's number, with the fields of a score.
NUMBERS: Mapping[str, str] = {
    "value": "value", "low": "ci_low", "high": "ci_high", "control": "control", "lift": "lift",
    "liftLow": "lift_low", "liftHigh": "lift_high",
}  # fmt: skip

ACCURACY = ("accuracy", "accuracyLow", "accuracyHigh")
