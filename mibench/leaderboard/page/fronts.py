"""How often a defended victim stays on the front of privacy and utility when the targets are drawn anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mibench.leaderboard.eligible import SPOILT
from mibench.leaderboard.numbers import in_common
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.statistics import LEAST_TARGETS
from mibench.leaderboard.worst import headline_lifts
from mibench.seeding import derive

if TYPE_CHECKING:
    from mibench.leaderboard.statistics import Floats

#: Random draws of targets.
DRAWS = 1000


def front_shares(records: Sequence[Record]) -> dict[int, float]:
    """Return by place in which share of random draws of targets a group is on the front before one attack.

    A group is on the front of a draw where no other whose victim is at least as accurate leaks less: where the mean
    lift over the drawn targets, of all seeds, is not the higher one. Accuracies stay as they are. Groups of which
    accuracy or values by target are not known take no part, nor do those whose model is no better than naming the most
    frequent class; of fewer than two, or of fewer than ``LEAST_TARGETS``
    targets in common, nothing is said.

    Args:
        records: The groups of one attack in one view, the undefended one among them.
    """
    told = [one for one in records if not math.isnan(one.accuracy) and one.barred != SPOILT]
    found = [(one, headline_lifts(one.group)) for one in told]
    known = [(one, lifts) for one, lifts in found if lifts is not None]
    if len(known) < 2:
        return {}
    seeds, targets, tables = in_common([lifts for _, lifts in known])
    if not seeds or len(targets) < LEAST_TARGETS:
        return {}
    lifts = np.stack([np.nanmean(table, axis=0) for table in tables])
    accuracies = np.array([one.accuracy for one, _ in known])
    shares = on_front(lifts, accuracies)
    return {one.place: share for (one, _), share in zip(known, shares, strict=True)}


def on_front(lifts: Floats, accuracies: Floats) -> list[float]:
    """Return the shares of draws in which each of ``G`` groups is on the front.

    Args:
        lifts: Lift by group and target, shape ``(G, n)``.
        accuracies: Shape ``(G,)``.
    """
    _, n = lifts.shape
    draws = np.random.default_rng(derive(0, "front")).multinomial(n, np.full(n, 1 / n), size=DRAWS)
    means = draws @ lifts.T / n  # draws, groups
    shares = []
    for own, accuracy in enumerate(accuracies):
        others = (accuracies >= accuracy) & (np.arange(len(accuracies)) != own)
        beaten = means[:, others] < means[:, [own]] - 1e-12
        shares.append(1 - float(beaten.any(axis=1).mean()))
    return shares
