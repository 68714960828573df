"""From rows to what a reader compares: cells that differ in the seed alone are one group, with one interval."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mibench.card import headline_of
from mibench.leaderboard.numbers import Number, coded, measured_rows, numbers_of, picked
from mibench.leaderboard.statistics import NAN
from mibench.leaderboard.verdicts import judged

if TYPE_CHECKING:
    import pyarrow as pa

#: Facts of a cell that a table shows as they are.
FACTS = (
    "dataset", "modality", "setting", "target", "attack", "attack_family", "task", "access", "knowledge", "defense",
    "defense_hooks", "budget", "fidelity",
)  # fmt: skip

#: Facts that vary with the run: those of the group's first cell.
RUN = ("device", "mibench_version", "git_commit", "notes", "judged_by", "convergence", "schema_version")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a group: its id, seed, status (``ok`` where anything was measured) and the reason of any other."""

    cell_id: str
    seed: int
    status: str
    reason: str


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
        return self._by_key.get((metric, variant, evaluator))

    @cached_property
    def _by_key(self) -> dict[tuple[str, str, str], Number]:
        return {one.key: one for one in self.numbers}

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
    def accuracy(self) -> float:
        """The value of :attr:`utility`; NaN where that was not measured."""
        return NAN if self.utility is None else self.utility.score.value

    @property
    def old(self) -> bool:
        """Whether its rows are of the first schema, which has neither nulls nor values by target."""
        return int(self.facts["schema_version"]) < 2

    @property
    def measured(self) -> bool:
        """Whether any cell gave a number."""
        return any(cell.status == "ok" for cell in self.cells)


def groups_of(table: pa.Table) -> list[Group]:
    """Return the groups of a table, sorted by what they are, then by id.

    Args:
        table: Rows as :func:`mibench.leaderboard.collect.collect_shards` gives them.
    """
    if not len(table):
        return []
    cells = _cells(table)
    numbers = numbers_of(table)
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
    ids, codes = coded(table, "cell_id")
    measured = np.bincount(codes, weights=measured_rows(table), minlength=len(ids)) > 0
    used, first = np.unique(codes, return_index=True)
    names = ("cell_id", "group_id", "seed", "status", "reason", *FACTS, *RUN, *COST, "config")
    columns = [picked(table, name, first) for name in names]
    grouped: dict[str, list[dict[str, Any]]] = {}
    for ok, *values in zip(measured[used].tolist(), *columns, strict=True):
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
        facts={name: str(first[name]) for name in (*FACTS, *RUN)},
        cost={name: sum(one[name] for one in measured) / len(measured) if measured else NAN for name in COST}
        | {"training_times": NAN},
        cells=[
            Cell(cell_id=one["cell_id"], seed=one["seed"], status=one["status"], reason=one["reason"])
            for one in sorted(records, key=lambda one: (one["seed"], one["cell_id"]))
        ],
        numbers=_with_verdicts(numbers, int(first["schema_version"]) < 2),
        config_json=first["config"],
    )


def _with_verdicts(numbers: Sequence[Number], old: bool) -> list[Number]:
    scores = judged([one.score for one in numbers], old)
    return [
        one if one.score is score else Number(score=score, seeds=one.seeds, by_seed=one.by_seed)
        for one, score in zip(numbers, scores, strict=True)
    ]
