"""From rows to what a reader compares: cells that differ in the seed alone are one group, with one interval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.types as pa_types

from mibench.card import headline_of
from mibench.leaderboard.scoring import NAN, Score, evidence
from mibench.leaderboard.tables import codes_of, integers, plain_numbers

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: Facts of a cell that a table shows as they are.
FACTS = (
    "dataset", "modality", "setting", "target", "attack", "attack_family", "task", "access", "knowledge", "defense",
    "defense_hooks", "budget", "fidelity",
)  # fmt: skip

#: Facts that vary with the run: those of the group's first cell.
RUN = ("device", "mibench_version", "git_commit", "notes")

#: Two-sided 95 % quantiles of Student's t for 1 to 10 degrees of freedom.
T95 = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a group: its id, seed, status (``ok`` where anything was measured) and the reason of any other."""

    cell_id: str
    seed: int
    status: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Number:
    """One metric of one group, over its seeds.

    Attributes:
        score: Mean over seeds with the interval of :func:`spread`; a number that could not be measured has its reason.
        seeds: Seeds behind it.
    """

    score: Score
    seeds: int

    @property
    def key(self) -> tuple[str, str, str]:
        """Metric, variant and evaluator."""
        return self.score.metric, self.score.variant, self.score.evaluator

    @property
    def verdict(self) -> str:
        """The words of :func:`mibench.leaderboard.scoring.evidence`."""
        return evidence(self.score)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells that differ in the seed alone.

    Attributes:
        group_id: Their common id.
        facts: The columns of ``FACTS`` and ``RUN``.
        cost: Means over cells of ``queries``, ``gradient_evals``, ``seconds``, ``training_seconds`` and
            ``peak_memory_mb``, and ``training_times``: ``training_seconds`` over that of the same target without a
            defense on the same device, NaN where it was not measured.
        cells: Its cells, by seed.
        numbers: Its numbers, by metric, variant and evaluator.
        config_json: The configuration of its first cell.
    """

    group_id: str
    facts: Mapping[str, str]
    cost: dict[str, float]
    cells: Sequence[Cell]
    numbers: Sequence[Number]
    config_json: str

    @cached_property
    def config(self) -> dict[str, Any]:
        """The configuration of the first cell, with its seed."""
        parsed: dict[str, Any] = json.loads(self.config_json)
        return parsed

    def number(self, metric: str, variant: str = "", evaluator: str = "") -> Number | None:
        """Return one of its numbers, None where it has none of that name."""
        return next((one for one in self.numbers if one.key == (metric, variant, evaluator)), None)

    @property
    def headline(self) -> Number | None:
        """The number by which its task is compared first."""
        return self.number(*headline_of(self.facts["task"], self.facts["modality"]))

    @property
    def utility(self) -> Number | None:
        """How often the defended model is right: after federated training with the defense, where that was measured."""
        together = self.number("federated_accuracy")
        measured = together is not None and together.score.status == "ok"
        return together if measured else self.number("target_accuracy", "victim")

    @property
    def measured(self) -> bool:
        """Whether any cell gave a number."""
        return any(cell.status == "ok" for cell in self.cells)


def student(seeds: NDArray[np.int64]) -> Floats:
    """Return the two-sided 95 % quantile of Student's t for so many seeds, to 0.1 %; 0 for one seed."""
    freedom = np.maximum(seeds - 1, 1)
    z = 1.959964
    many = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    few = np.array((0.0, *T95))[np.minimum(seeds - 1, len(T95))]
    return np.where(seeds - 1 <= len(T95), few, many)


def spread(values: Floats, ends: Floats, starts: NDArray[np.int64]) -> Floats:
    """Return how far one end of each group's interval lies from the group's mean.

    ``sqrt((t s / sqrt(n))^2 + mean(|end - value|)^2)``: the half-width of Student's interval over the ``n`` seeds,
    whose values have the standard deviation ``s``, and the mean distance of the cells' own ends, which speak of
    targets. The second is not divided by ``n``, since all seeds attack the same targets. For one seed it is the cell's
    own interval.

    Args:
        values: The seeds' values, group after group, shape ``(rows,)``.
        ends: The same end of the seeds' own intervals, shape ``(rows,)``.
        starts: Where each group starts, shape ``(groups,)``.
    """
    seeds = np.diff(np.r_[starts, len(values)])
    mean = np.add.reduceat(values, starts) / seeds
    with np.errstate(invalid="ignore"):  # an infinite value (epsilon without noise) has no spread: NaN
        squares = np.add.reduceat((values - np.repeat(mean, seeds)) ** 2, starts)
        over_seeds = student(seeds) * np.sqrt(squares / np.maximum(seeds - 1, 1) / seeds)
        over_targets = np.add.reduceat(np.abs(ends - values), starts) / seeds
    both: Floats = np.hypot(over_seeds, over_targets)
    return both


def groups_of(table: pa.Table) -> list[Group]:
    """Return the groups of a table, sorted by what they are, then by id.

    Args:
        table: Rows as :func:`mibench.leaderboard.collect.collect_shards` gives them.
    """
    if not len(table):
        return []
    cells = _cells(table)
    numbers = _numbers(table)
    found = [_group(group, rows, numbers.get(group, [])) for group, rows in cells.items()]
    compare_training(found)
    return sorted(found, key=lambda one: (*(one.facts[name] for name in SORTED_BY), one.group_id))


def compare_training(groups: Sequence[Group]) -> None:
    """Fill ``training_times`` in the groups' costs."""

    def target(one: Group) -> str:
        return json.dumps([*(one.config.get(axis) for axis in TRAINED_BY), one.facts["device"]], sort_keys=True)

    timed = [(one, target(one)) for one in groups if not np.isnan(one.cost["training_seconds"])]
    plain: dict[str, list[float]] = {}
    for one, key in timed:
        if one.facts["defense"] == "none":
            plain.setdefault(key, []).append(one.cost["training_seconds"])
    for one, key in timed:
        if plain.get(key):
            one.cost["training_times"] = one.cost["training_seconds"] / float(np.mean(plain[key]))


#: Blocks of a configuration that say how a target is trained, beside its defense.
TRAINED_BY = ("dataset", "setting", "target")


SORTED_BY = ("task", "dataset", "setting", "target", "attack", "defense", "budget")


def _cells(table: pa.Table) -> dict[str, list[dict[str, Any]]]:
    """Return one record per cell, by group; a cell with any measured row counts as measured."""
    ids, codes = _coded(table, "cell_id")
    measured = np.bincount(codes, weights=_is_ok(table), minlength=len(ids)) > 0
    first = np.unique(codes, return_index=True)[1]
    names = ("cell_id", "group_id", "seed", "status", "reason", *FACTS, *RUN, *COST, "config")
    columns = [_picked(table, name, first) for name in names]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for ok, *values in zip(measured.tolist(), *columns, strict=True):
        record = dict(zip(names, values, strict=True))
        if ok:
            record |= {"status": "ok", "reason": ""}
        grouped.setdefault(record["group_id"], []).append(record)
    return grouped


COST = ("queries", "gradient_evals", "seconds", "training_seconds", "peak_memory_mb")


def _group(group_id: str, records: list[dict[str, Any]], numbers: list[Number]) -> Group:
    records = sorted(records, key=lambda one: (one["status"] != "ok", one["seed"], one["cell_id"]))
    first, measured = records[0], [one for one in records if one["status"] == "ok"]
    return Group(
        group_id=group_id,
        facts={name: first[name] for name in (*FACTS, *RUN)},
        cost={name: sum(one[name] for one in measured) / len(measured) if measured else NAN for name in COST}
        | {"training_times": NAN},
        cells=[
            Cell(cell_id=one["cell_id"], seed=one["seed"], status=one["status"], reason=one["reason"])
            for one in sorted(records, key=lambda one: (one["seed"], one["cell_id"]))
        ],
        numbers=numbers,
        config_json=first["config"],
    )


def _numbers(table: pa.Table) -> dict[str, list[Number]]:
    """Return the numbers of every group, sorted by metric, variant and evaluator."""
    coded = {name: _coded(table, name) for name in ("group_id", "metric", "variant", "evaluator")}
    key = np.zeros(len(table), dtype=np.int64)
    for values, codes in coded.values():
        key = key * (len(values) + 1) + codes
    ok = _is_ok(table)
    order = np.lexsort((~ok, key))  # by number; the measured rows of a number stand first
    firsts = order[np.flatnonzero(np.r_[True, np.diff(key[order]) != 0])]
    rows = order[ok[order]]
    averages = _averages(table, rows, np.flatnonzero(np.r_[True, np.diff(key[rows]) != 0])) if len(rows) else {}
    measured = iter(zip(*averages.values(), strict=True))
    words = {name: [values[code] for code in codes[firsts]] for name, (values, codes) in coded.items()}
    told = {name: _picked(table, name, firsts) for name in ("unit", "higher_is_leakier", "status", "reason")}
    found: dict[str, list[Number]] = {}
    for group, metric, variant, evaluator, unit, higher, status, reason in zip(
        *words.values(), *told.values(), strict=True
    ):
        said: dict[str, Any] = {"metric": metric, "variant": variant, "evaluator": evaluator, "unit": unit}
        said["higher_is_leakier"] = higher
        if status == "ok":
            seeds, *numbers = next(measured)
            score = Score(**said, **dict(zip(SCORED, numbers, strict=True)))
            found.setdefault(group, []).append(Number(score=score, seeds=seeds))
        elif metric:
            score = Score(**said, status=status, reason=reason)
            found.setdefault(group, []).append(Number(score=score, seeds=0))
    return found


SCORED = ("n", "value", "ci_low", "ci_high", "control", "lift", "lift_low", "lift_high", "lift_even", "lift_odd")


def _averages(table: pa.Table, rows: NDArray[np.int64], starts: NDArray[np.int64]) -> dict[str, list[Any]]:
    """Return seeds and the fields ``SCORED`` of every number, each of length ``len(starts)``."""
    column = {name: plain_numbers(table[name].combine_chunks()).astype(np.float64)[rows] for name in SCORED}
    seeds = np.diff(np.r_[starts, len(rows)])

    def mean(name: str) -> Floats:
        averaged: Floats = np.add.reduceat(column[name], starts) / seeds
        return averaged

    def end(middle: str, name: str, sign: int) -> Floats:
        wide = mean(middle) + sign * spread(column[middle], column[name], starts)
        return np.where(seeds == 1, column[name][starts], wide)

    numbers = {
        "seeds": seeds,
        "n": np.add.reduceat(column["n"], starts).astype(np.int64),
        "value": mean("value"),
        "ci_low": end("value", "ci_low", -1),
        "ci_high": end("value", "ci_high", 1),
        "control": mean("control"),
        "lift": mean("lift"),
        "lift_low": end("lift", "lift_low", -1),
        "lift_high": end("lift", "lift_high", 1),
        "lift_even": mean("lift_even"),
        "lift_odd": mean("lift_odd"),
    }
    return {name: array.tolist() for name, array in numbers.items()}


def _is_ok(table: pa.Table) -> NDArray[np.bool_]:
    values, codes = _coded(table, "status")
    return np.array([value == "ok" for value in values], dtype=bool)[codes]


def _coded(table: pa.Table, name: str) -> tuple[list[str], NDArray[np.int64]]:
    """Return the values of a string column in order, and every row's position among them."""
    dictionary, codes = codes_of(table, name)
    values = dictionary.to_pylist()
    distinct = sorted(set(values))
    position = {value: number for number, value in enumerate(distinct)}
    return distinct, np.array([position[value] for value in values], dtype=np.int64)[codes]


def _picked(table: pa.Table, name: str, rows: NDArray[np.int64]) -> list[Any]:
    """Return a column's values in some rows, as plain objects; a missing string is empty."""
    if not pa_types.is_dictionary(table.schema.field(name).type):
        picked: list[Any] = table[name].take(integers(rows)).to_pylist()
        return picked
    dictionary, codes = codes_of(table, name)
    values = dictionary.to_pylist()
    return [values[code] for code in codes[rows]]
