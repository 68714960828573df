"""Intervals and comparisons: what the targets and the seeds behind a number allow to be said of it.

A target (a person, a client, a record) is the unit: its values are averaged first. All intervals are two-sided 95 %
intervals, so a true lift of zero is called a lift in 2.5 % of cases. How often each rule errs on few targets is
measured by ``tests/leaderboard/test_statistics.py`` and written down in ``docs/statistics.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Floats: TypeAlias = NDArray[np.float64]

NAN = float("nan")

#: Of fewer targets an interval says little: two that agree by chance would look certain.
LEAST_TARGETS = 5

#: Share of intervals that hold the true value.
LEVEL = 0.95


@lru_cache(maxsize=4096)
def student(freedom: float, level: float = LEVEL) -> float:
    """Return the two-sided quantile of Student's t for so many degrees of freedom."""
    from scipy import special  # scipy.stats takes a second to import

    return float(special.stdtrit(freedom, (1 + level) / 2))


@lru_cache(maxsize=1)
def _normal() -> float:
    from scipy import special

    return float(special.ndtri((1 + LEVEL) / 2))


@lru_cache(maxsize=4096)
def exact(hits: int, n: int) -> tuple[float, float]:
    """Return the interval of Clopper and Pearson (1934) of a share of ``hits`` among ``n``."""
    from scipy import special

    tail = (1 - LEVEL) / 2
    low = float(special.betaincinv(hits, n - hits + 1, tail)) if hits else 0.0
    return low, float(special.betaincinv(hits + 1, n - hits, 1 - tail)) if hits < n else 1.0


def wilson(share: float, n: float, quantile: float) -> tuple[float, float]:
    """Return the score interval of Wilson (1927) of a share seen ``n`` times, where ``n`` need not be whole."""
    middle = (share + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile * np.sqrt(share * (1 - share) / n + quantile**2 / (4 * n**2)) / (1 + quantile**2 / n)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def mean_interval(values: ArrayLike) -> tuple[float, float]:
    """Return Student's interval of a mean over targets; NaN for fewer than ``LEAST_TARGETS``, or infinite values."""
    numbers = np.asarray(values, dtype=np.float64)
    if len(numbers) < LEAST_TARGETS or not np.isfinite(numbers).all():
        return NAN, NAN
    mean, half = float(numbers.mean()), student(len(numbers) - 1) * float(numbers.std(ddof=1)) / len(numbers) ** 0.5
    return mean - half, mean + half


def share_interval(values: ArrayLike) -> tuple[float, float]:
    """Return the interval of a mean over targets whose values are shares, within [0, 1].

    Where every target is right or wrong it is Wilson's. Where targets have shares between, it is Wilson's at the
    effective number of targets ``p (1 - p) / s^2``, with Student's quantile (Korn and Graubard, 1998). Where all are
    right, or all are wrong, the ends are those of Clopper and Pearson.

    Args:
        values: The targets' shares, shape ``(n,)``; NaN comes back for fewer than ``LEAST_TARGETS``.
    """
    numbers = np.asarray(values, dtype=np.float64)
    n = len(numbers)
    if n < LEAST_TARGETS or not np.isfinite(numbers).all():
        return NAN, NAN
    share = min(1.0, max(0.0, float(numbers.mean())))
    if share in (0.0, 1.0):
        return exact(round(share * n), n)
    variance = float(numbers.var(ddof=1))
    if ((numbers == 0) | (numbers == 1)).all() or variance == 0:
        return wilson(share, n, _normal())
    return wilson(share, share * (1 - share) / variance * n, student(n - 1))


def difference_interval(values: ArrayLike, others: ArrayLike, share: bool) -> tuple[float, float]:
    """Return the interval of the mean difference ``values - others``, target by target.

    It is Student's on the differences. Where all differences are equal, that would have no width: of shares it is then
    made of the two means' own intervals (Newcombe, 1998, without the correlation). Differences of shares stay within
    [-1, 1].

    Args:
        values: The targets' values, shape ``(n,)``.
        others: What they are compared with, of the same targets, shape ``(n,)``.
        share: Whether both are shares.
    """
    left, right = np.asarray(values, dtype=np.float64), np.asarray(others, dtype=np.float64)
    with np.errstate(invalid="ignore"):  # an infinite value has no difference: NaN
        gain = left - right
    low, high = mean_interval(gain)
    if not share or np.isnan(low):
        return low, high
    if np.ptp(gain) < 1e-12:
        (low_one, high_one), (low_other, high_other) = share_interval(left), share_interval(right)
        one, other, mean = float(left.mean()), float(right.mean()), float(gain.mean())
        low = mean - np.hypot(one - low_one, high_other - other)
        high = mean + np.hypot(high_one - one, other - low_other)
    return max(-1.0, float(low)), min(1.0, float(high))


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and targets, with its interval.

    Attributes:
        mean: Mean over seeds of the means over targets.
        low: Lower end of the 95 % interval; NaN for fewer than ``LEAST_TARGETS``.
        high: Upper end.
        p: Two-sided p-value of a mean of zero, by the same interval; NaN where that is.
        n: Number of different targets.
        seeds: Number of seeds.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int
    seeds: int


def over_seeds(table: Floats, low: float, high: float, share: bool = False, signed: bool = True) -> Spread:
    """Return the mean of a table of seeds and targets, with an interval in which both have a part.

    ``sqrt((t_{S-1} s_S / sqrt(S))^2 + d^2)``: the half-width of Student's interval over the ``S`` seeds' means, and the
    distance ``d`` of the mean from the end of the interval over targets. Each part has its own quantile, since there
    are often three seeds and many targets. (A bootstrap over seeds and targets errs in up to 12 % of cases with three
    seeds where 2.5 % are meant.) For one seed it is the interval over targets.

    Args:
        table: Values by seed and target, shape ``(S, n)``; NaN where a seed did not have the target.
        low: Lower end of the interval of the targets' means over seeds.
        high: Its upper end.
        share: Whether values are shares, or differences of shares.
        signed: Whether they are differences.
    """
    seeds, means = len(table), np.nanmean(table, axis=1)
    mean, n = float(means.mean()), table.shape[1]
    over = student(seeds - 1) * float(means.std(ddof=1)) / seeds**0.5 if seeds > 1 else 0.0
    bottom, top = mean - float(np.hypot(over, mean - low)), mean + float(np.hypot(over, high - mean))
    if share:
        bottom, top = max(-1.0 if signed else 0.0, bottom), min(1.0, top)
    return Spread(mean, bottom, top, _p_value(table) if signed else NAN, n, seeds)


def paired(table: Floats, share: bool = False) -> Spread:
    """Return the mean of paired differences by seed and target, shape ``(S, n)``, with interval and p-value."""
    targets = np.nanmean(table, axis=0)
    low, high = mean_interval(targets)
    return over_seeds(table, low, high, share)


def _p_value(table: Floats) -> float:
    """Return one less the level at which the interval of :func:`over_seeds` touches zero."""
    from scipy import optimize, special

    targets, means = np.nanmean(table, axis=0), np.nanmean(table, axis=1)
    n, seeds, mean = len(targets), len(means), abs(float(means.mean()))
    if n < LEAST_TARGETS or not np.isfinite(targets).all():
        return NAN
    per_target = float(targets.std(ddof=1)) / n**0.5
    per_seed = float(means.std(ddof=1)) / seeds**0.5 if seeds > 1 else 0.0
    if per_target == per_seed == 0:
        return 1.0 if mean == 0 else 0.0

    def beyond(log_p: float) -> float:
        tail = float(np.exp(log_p)) / 2
        of_seeds = special.stdtrit(seeds - 1, tail) * per_seed if seeds > 1 else 0.0
        return float(np.hypot(special.stdtrit(n - 1, tail) * per_target, of_seeds)) - mean

    if beyond(np.log(1 - 1e-12)) >= 0:
        return 1.0
    least = np.log(1e-12)
    return float(np.exp(optimize.brentq(beyond, least, 0.0))) if beyond(least) > 0 else 1e-12


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold for a whole table of comparisons (Holm, 1979); NaN stays NaN and does not count.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    known = sorted((p, place) for place, p in enumerate(p_values) if not np.isnan(p))
    adjusted, least = [NAN] * len(p_values), 0.0
    for rank, (p, place) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        adjusted[place] = least
    return adjusted


def aligned(rows: Sequence[tuple[Sequence[str], Sequence[float]]]) -> Floats:
    """Return the values of several seeds as a table of seeds and targets, shape ``(S, n)``, NaN where one has none.

    Args:
        rows: Of every seed the names of its targets and their values. Without names the targets of every seed are its
            own, as test examples of unlike splits are.
    """
    names: dict[str, int] = {}
    named = [[f"{seed}/{place}" for place in range(len(values))] if not len(targets) else list(targets)
             for seed, (targets, values) in enumerate(rows)]  # fmt: skip
    for own in named:
        for name in own:
            names.setdefault(name, len(names))
    table = np.full((len(rows), len(names)), np.nan)
    for seed, (own, (_, values)) in enumerate(zip(named, rows, strict=True)):
        table[seed, [names[name] for name in own]] = values
    return table


def in_blocks(values: Floats, names: Sequence[str], most: int = 1000, blocks: int = 20) -> tuple[Floats, list[str]]:
    """Return per-target values as they are stored: all up to ``most`` of them, else the means of equal blocks.

    Args:
        values: Shape ``(n,)``.
        names: The targets' names, shape ``(n,)``, or none.
        most: The most that are stored one by one.
        blocks: Number of blocks otherwise.
    """
    if len(values) <= most:
        return values, list(names)
    parts = np.array_split(values, blocks)
    means: Floats = np.array([part.mean() for part in parts])
    return means, [f"block {number + 1} of {blocks}" for number in range(blocks)] if len(names) else []
