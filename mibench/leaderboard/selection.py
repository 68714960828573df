"""What was picked, reported on what it was not picked by.

Whoever reports the best of several numbers on the targets by which it was picked reports luck as well. Here the choice
is made on a random half of the targets and reported on the other half, for many halves, and every target's values are
averaged over the halves in which it took no part in the choice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mibench.leaderboard.statistics import LEAST_TARGETS, NAN, Spread, paired
from mibench.seeding import derive

if TYPE_CHECKING:
    from mibench.leaderboard.statistics import Floats

#: Random halves that a choice is made on.
SPLITS = 200


@dataclass(frozen=True)
class Selected:
    """What a choice brings where it was not made.

    Attributes:
        spread: Its mean over seeds and targets, with its interval.
        shares: How often each candidate was chosen, by its position, the most frequent first.
    """

    spread: Spread
    shares: Sequence[tuple[int, float]]


def cross_fitted(tables: Sequence[Floats], choose: Callable[[Sequence[float]], int], share: bool = False) -> Selected:
    """Return what is chosen by one half of the targets, over the other half.

    Args:
        tables: Values of every candidate by seed and target, shape ``(S, n)`` each, of the same seeds and targets.
        choose: Returns the position of the candidate to choose, given every candidate's mean over a half.
        share: Whether values are shares or differences of such.
    """
    seeds, n = tables[0].shape
    if n < LEAST_TARGETS:
        return Selected(Spread(NAN, NAN, NAN, NAN, n, seeds), [])
    stacked = np.stack(tables)  # candidates, seeds, targets
    draws = np.random.default_rng(derive(0, "halves"))
    total, count = np.zeros((seeds, n)), np.zeros(n)
    chosen: Counter[int] = Counter()
    for _ in range(SPLITS):
        order = draws.permutation(n)
        for own, other in ((order[: n // 2], order[n // 2 :]), (order[n // 2 :], order[: n // 2])):
            pick = choose(np.nanmean(stacked[:, :, own], axis=(1, 2)).tolist())
            chosen[pick] += 1
            total[:, other] += stacked[pick][:, other]
            count[other] += 1
    return Selected(
        paired(total / count, share),
        [(pick, times / chosen.total()) for pick, times in chosen.most_common()],
    )


def strongest(means: Sequence[float]) -> int:
    """Return the position of the highest mean.

    >>> strongest([0.1, 0.4, 0.2])
    1
    """
    return max(range(len(means)), key=means.__getitem__)


def weakest_of_strongest(levels: Sequence[Sequence[int]]) -> Callable[[Sequence[float]], int]:
    """Return a choice of the level at which the strongest candidate is the weakest: a defense's best, before all.

    Args:
        levels: Of every level the positions of its candidates.

    >>> weakest_of_strongest([[0, 1], [2, 3]])([0.1, 0.9, 0.3, 0.2])
    2
    """

    def choose(means: Sequence[float]) -> int:
        worst = [max(own, key=means.__getitem__) for own in levels]
        return min(worst, key=means.__getitem__)

    return choose
