"""Numbers over seeds: one metric, variant and evaluator of a group, with an interval from seeds and targets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.types as pa_types

from mibench.leaderboard.rows import LISTS
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.statistics import (
    aligned,
    difference_interval,
    mean_interval,
    over_seeds,
    share_interval,
    student,
)
from mibench.leaderboard.tables import codes_of, integers, plain_numbers

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Number:
    """One metric of one group, over its seeds.

    Attributes:
        score: Mean over seeds, with the interval of :func:`mibench.leaderboard.statistics.over_seeds`, the verdict of
            :mod:`mibench.leaderboard.verdicts`, and of every target the mean over seeds; a number that could not be
            measured has its reason.
        seeds: Seeds behind it.
        by_seed: Of every seed whose targets are known its number, targets and all.
    """

    score: Score
    seeds: int
    by_seed: Mapping[int, Score]

    @property
    def key(self) -> tuple[str, str, str]:
        """Metric, variant and evaluator."""
        return self.score.metric, self.score.variant, self.score.evaluator

    @property
    def verdict(self) -> str:
        """The word of :mod:`mibench.leaderboard.verdicts`."""
        return self.score.evidence


@dataclass(frozen=True)
class ByTarget:
    """A number by seed and target.

    Attributes:
        seeds: Seeds, shape ``(S,)``.
        targets: Names of the targets, shape ``(n,)``.
        values: Shape ``(S, n)``; NaN where a seed did not have the target.
    """

    seeds: Sequence[int]
    targets: Sequence[str]
    values: Floats


@np.errstate(invalid="ignore")  # of infinite values, whose differences say nothing
def by_target(number: Number, lift: bool = True) -> ByTarget | None:
    """Return a number by seed and target, None where its rows do not tell.

    Args:
        number: The number.
        lift: Whether its lift over the control is asked for, in the direction of the leak, or its value.
    """
    rows: list[tuple[Sequence[str], Sequence[float]]] = []
    seeds = sorted(number.by_seed)
    sign = -1.0 if lift and number.score.higher_is_leakier is False else 1.0
    for seed in seeds:
        one = number.by_seed[seed]
        values = np.asarray(one.per_target, dtype=np.float64)
        if not len(values) or (lift and len(one.per_target_control) != len(values)):
            return None
        names = list(one.targets) or [f"{seed}/{place}" for place in range(len(values))]
        found = sign * (values - np.asarray(one.per_target_control)) if lift else values
        rows.append((names, found.tolist()))
    if len(rows) < max(1, number.seeds):
        return None
    return ByTarget(seeds, list(dict.fromkeys(name for names, _ in rows for name in names)), aligned(rows))


def in_common(tables: Sequence[ByTarget]) -> tuple[list[int], list[str], list[Floats]]:
    """Return the seeds and targets that all tables share, and each table's values of them, shape ``(S, n)``."""
    seeds = [seed for seed in tables[0].seeds if all(seed in one.seeds for one in tables)]
    targets = [name for name in tables[0].targets if all(name in set(one.targets) for one in tables)]
    values = [
        one.values[np.ix_([list(one.seeds).index(seed) for seed in seeds],
                          [list(one.targets).index(name) for name in targets])]
        for one in tables
    ]  # fmt: skip
    kept = ~np.all([np.isnan(one).all(axis=0) for one in values], axis=0) if targets else np.zeros(0, dtype=bool)
    return seeds, [name for name, stays in zip(targets, kept, strict=True) if stays], [one[:, kept] for one in values]


def spread(values: Floats, ends: Floats, starts: NDArray[np.int64]) -> Floats:
    """Return how far one end of each group's interval lies from its mean, where nothing is known of single targets.

    ``sqrt((t s / sqrt(n))^2 + mean(|end - value|)^2)``, as :func:`mibench.leaderboard.statistics.over_seeds` has it,
    with the mean distance of the cells' own ends in the place of the targets. For one seed it is the cell's own
    interval.

    Args:
        values: The seeds' values, group after group, shape ``(rows,)``.
        ends: The same end of the seeds' own intervals, shape ``(rows,)``.
        starts: Where each group starts, shape ``(groups,)``.
    """
    seeds = np.diff(np.r_[starts, len(values)])
    mean = np.add.reduceat(values, starts) / seeds
    quantiles = np.array([student(int(count) - 1) if count > 1 else 0.0 for count in seeds])
    with np.errstate(invalid="ignore"):  # an infinite value (epsilon without noise) has no spread: NaN
        squares = np.add.reduceat((values - np.repeat(mean, seeds)) ** 2, starts)
        of_seeds = quantiles * np.sqrt(squares / np.maximum(seeds - 1, 1) / seeds)
        of_targets = np.add.reduceat(np.abs(ends - values), starts) / seeds
    both: Floats = np.hypot(of_seeds, of_targets)
    return both


@np.errstate(invalid="ignore")  # of infinite values, whose differences say nothing
def numbers_of(table: pa.Table) -> dict[str, list[Number]]:
    """Return the numbers of every group, sorted by metric, variant and evaluator."""
    words_of = {name: coded(table, name) for name in ("group_id", "metric", "variant", "evaluator")}
    key = np.zeros(len(table), dtype=np.int64)
    for values, codes in words_of.values():
        key = key * (len(values) + 1) + codes
    ok = measured_rows(table)
    order = np.lexsort((~ok, key))  # by number; the measured rows of a number stand first
    firsts = order[np.flatnonzero(np.r_[True, np.diff(key[order]) != 0])]
    rows = order[ok[order]]
    starts = np.flatnonzero(np.r_[True, np.diff(key[rows]) != 0])
    averages = _averages(table, rows, starts) if len(rows) else {}
    measured = iter(zip(*averages.values(), strict=True))
    singles = iter(_by_seed(table, rows, starts) if len(rows) else ())
    words = {name: [values[code] for code in codes[firsts]] for name, (values, codes) in words_of.items()}
    told = {name: picked(table, name, firsts) for name in TOLD}
    found: dict[str, list[Number]] = {}
    for group, metric, variant, evaluator, *rest in zip(*words.values(), *told.values(), strict=True):
        said: dict[str, Any] = {"metric": metric, "variant": variant, "evaluator": evaluator}
        said |= dict(zip(TOLD, rest, strict=True))
        if said["status"] == "ok":
            seeds, *numbers = next(measured)
            score = Score(**said, **dict(zip(SCORED, numbers, strict=True)))
            own = {seed: score.having(**one) for seed, one in next(singles)}
            found.setdefault(group, []).append(Number(score=_over(score, own, seeds), seeds=seeds, by_seed=own))
        elif metric:
            found.setdefault(group, []).append(Number(score=Score(**said), seeds=0, by_seed={}))
    return found


#: What all seeds of a number have in common.
TOLD = ("unit", "share", "higher_is_leakier", "null_name", "status", "reason")


def _by_seed(
    table: pa.Table, rows: NDArray[np.int64], starts: NDArray[np.int64]
) -> Iterator[list[tuple[int, dict[str, Any]]]]:
    """Yield of every number its seeds, each with what varies between them; none where targets are not known."""
    import pyarrow.compute as pc

    known = plain_numbers(pc.list_value_length(table["per_target"]).combine_chunks())[rows] > 0
    places = np.flatnonzero(known)
    names = ("seed", "null_name", *SCORED, *LISTS)
    columns = [picked(table, name, rows[places]) for name in names]
    position = np.full(len(rows), -1)
    position[places] = np.arange(len(places))
    ends = [*starts[1:].tolist(), len(rows)]
    for start, end in zip(starts.tolist(), ends, strict=True):
        yield [
            (columns[0][row], {name: column[row] for name, column in zip(names[1:], columns[1:], strict=True)})
            for row in position[start:end].tolist()
            if row >= 0
        ]


def _over(score: Score, own: Mapping[int, Score], count: int) -> Score:
    """Return the mean over seeds, with intervals from seeds and targets where all ``count`` seeds tell theirs."""
    seeds = [one for _, one in sorted(own.items())]
    if len(seeds) < count:
        return score
    first = seeds[0]
    if len(seeds) == 1:
        lists = {name: getattr(first, name) for name in LISTS}
        return score.having(null_name=first.null_name, **lists)
    sign = -1.0 if score.higher_is_leakier is False else 1.0

    def table_of(name: str) -> Floats | None:
        values = [getattr(one, name) for one in seeds]
        same = all(len(one) == len(seed.per_target) for one, seed in zip(values, seeds, strict=True))
        return aligned([(one.targets, column) for one, column in zip(seeds, values, strict=True)]) if same else None

    value = table_of("per_target")
    assert value is not None
    means = np.nanmean(value, axis=0)
    spans = over_seeds(value, *(share_interval if score.share else mean_interval)(means), score.share, signed=False)
    changes: dict[str, Any] = {"value": spans.mean, "ci_low": spans.low, "ci_high": spans.high, "n": spans.n}
    named = aligned([(one.targets, range(len(one.per_target))) for one in seeds]).shape[1] == len(first.targets)
    changes |= {"targets": first.targets if named else (), "per_target": means.tolist()}
    for other, stored, low, high in (
        ("lift", "per_target_control", "lift_low", "lift_high"),
        ("null_lift", "per_target_null", "null_lift_low", ""),
    ):
        floor = table_of(stored)
        if floor is None or score.higher_is_leakier is None:
            continue
        floors = np.nanmean(floor, axis=0)
        pair = (means, floors) if sign > 0 else (floors, means)
        found = over_seeds(sign * (value - floor), *difference_interval(*pair, score.share), score.share)
        changes |= {other: found.mean, low: found.low, stored: floors.tolist()} | ({high: found.high} if high else {})
    return score.having(**changes)


SCORED = (
    "n", "samples", "value", "ci_low", "ci_high", "control", "lift", "lift_low", "lift_high", "null", "null_lift",
    "null_lift_low",
)  # fmt: skip


def _averages(table: pa.Table, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Return seeds and the fields ``SCORED`` of every number, each of length ``len(starts)``."""
    column = {name: plain_numbers(table[name].combine_chunks()).astype(np.float64)[rows] for name in SCORED}
    seeds = np.diff(np.r_[starts, len(rows)])

    def mean(name: str) -> Floats:
        averaged: Floats = np.add.reduceat(column[name], starts) / seeds
        return averaged

    share = plain_numbers(table["share"].combine_chunks().cast("int8"))[rows][starts].astype(bool)

    def end(middle: str, name: str, sign: int) -> Floats:
        wide = mean(middle) + sign * spread(column[middle], column[name], starts)
        lowest = 0.0 if middle == "value" else -1.0  # differences of shares stay within [-1, 1]
        wide = np.where(share, np.clip(wide, lowest, 1.0), wide)
        return np.where(seeds == 1, column[name][starts], wide)

    numbers = {
        "seeds": seeds,
        "n": np.add.reduceat(column["n"], starts).astype(np.int64),
        "samples": np.add.reduceat(column["samples"], starts).astype(np.int64),
        "value": mean("value"),
        "ci_low": end("value", "ci_low", -1),
        "ci_high": end("value", "ci_high", 1),
        "control": mean("control"),
        "lift": mean("lift"),
        "lift_low": end("lift", "lift_low", -1),
        "lift_high": end("lift", "lift_high", 1),
        "null": mean("null"),
        "null_lift": mean("null_lift"),
        "null_lift_low": end("null_lift", "null_lift_low", -1),
    }
    return {name: array.tolist() for name, array in numbers.items()}


def measured_rows(table: pa.Table) -> NDArray[np.bool_]:
    """Return whether each row holds a number."""
    values, codes = coded(table, "status")
    return np.array([value == "ok" for value in values], dtype=bool)[codes]


def coded(table: pa.Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the values of a string column in order, and every row's position among them."""
    dictionary, codes = codes_of(table, name)
    values = dictionary.to_pylist()
    distinct = sorted(set(values))
    position = {value: number for number, value in enumerate(distinct)}
    return distinct, np.array([position[value] for value in values], dtype=np.int64)[codes]


def picked(table: pa.Table, name: str, rows: NDArray[np.int64]) -> list[Any]:
    """Return a column's values in some rows, as plain objects; a missing string is empty."""
    if not pa_types.is_dictionary(table.schema.field(name).type):
        values_of: list[Any] = table[name].take(integers(rows)).to_pylist()
        return values_of
    dictionary, codes = codes_of(table, name)
    values = dictionary.to_pylist()
    return [values[code] for code in codes[rows]]
