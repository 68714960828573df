"""Tables of one number: attacks by defenses, or any two facts, one table for each block of groups that can be compared.

Groups stand in one table where they differ in what goes with its rows and columns alone, as
:func:`mibench.leaderboard.compare.blocks` has it for one axis. Another target, budget or evaluation is another table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mibench.card import headline_of
from mibench.errors import UnknownNameError, UserError
from mibench.leaderboard.compare import number_of, shared
from mibench.leaderboard.exports.labels import VARYING, Label, Options, fact, labels, without_folders
from mibench.leaderboard.groups import Group
from mibench.leaderboard.numbers import Number

Key = tuple[str, str, str]

#: The facts that a caption says of all groups of a table, where they are neither its rows nor its columns.
SAID = ("dataset", "setting", "target", "attack", "access", "defense", "budget")

SHOWS = ("lift", "value")


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    Attributes:
        group: Its group.
        number: The number that is shown; None where the group has none.
        show: ``lift`` or ``value``.
    """

    group: Group
    number: Number | None
    show: str

    @property
    def measured(self) -> bool:
        """Whether there is a number to show."""
        return self.number is not None and self.number.seeds > 0 and not math.isnan(self.span[0])

    @property
    def span(self) -> tuple[float, float, float]:
        """Lift or value with the ends of its 95 % interval; NaN where there is none."""
        if self.number is None:
            return math.nan, math.nan, math.nan
        one = self.number.score
        return (one.lift, one.lift_low, one.lift_high) if self.show == "lift" else (one.value, one.ci_low, one.ci_high)

    @property
    def verdict(self) -> str:
        """The word of :mod:`mibench.leaderboard.verdicts`; empty where the number speaks of no leak."""
        return "" if self.number is None else self.number.verdict

    @property
    def reason(self) -> str:
        """Why nothing was measured."""
        if self.number is not None and self.number.score.reason:
            return f"{self.number.score.status}: {self.number.score.reason}"
        one = next((cell for cell in self.group.cells if cell.status != "ok"), None)
        return f"{one.status}: {one.reason}" if one else "this number was not measured"


@dataclass(frozen=True, kw_only=True)
class Crosstab:
    """One number of comparable groups, by two facts.

    Attributes:
        by: The facts of rows and columns.
        rows: Names of the rows, in order.
        columns: Names of the columns, in order.
        cells: Cells by row and column; combinations that were never run are missing.
        key: Metric, variant and evaluator.
        show: ``lift`` or ``value``.
        unit: Unit of the number.
        facts: What all groups have in common, by name.
        options: What of that differs from the defaults, as words of a command line.
    """

    by: tuple[str, str]
    rows: Sequence[Label]
    columns: Sequence[Label]
    cells: Mapping[tuple[Label, Label], Cell]
    key: Key
    show: str
    unit: str
    facts: Mapping[str, str]
    options: Sequence[str]

    @property
    def metric(self) -> str:
        """The number's name."""
        return " ".join(filter(None, self.key))

    @property
    def measured(self) -> list[Cell]:
        """The cells that hold a number, row by row."""
        return [self.cells[place] for row in self.rows for column in self.columns
                if (place := (row, column)) in self.cells and self.cells[place].measured]  # fmt: skip


def crosstabs(
    groups: Sequence[Group],
    rows: str,
    columns: str,
    options: Options,
    key: Key | None = None,
    show: str = "lift",
) -> list[Crosstab]:
    """Return the tables of all groups that have the number, and of those whose cells were skipped or failed.

    Args:
        groups: The groups.
        rows: The fact of the rows, a key of :data:`mibench.leaderboard.exports.labels.VARYING`.
        columns: That of the columns.
        options: What of a group differs from the defaults.
        key: Metric, variant and evaluator; None for the headline of each task.
        show: ``lift`` (over the control) or ``value``. Numbers without a control are shown by value.

    Raises:
        UserError: If the facts are no axes or the same, or no group has the number.
    """
    for axis in (rows, columns):
        if axis not in VARYING:
            raise UnknownNameError("axis of a table", axis, VARYING)
    if rows == columns:
        raise UserError(f"rows and columns are both '{rows}'; set one of them to another of {', '.join(VARYING)}.")
    if show not in SHOWS:
        raise UserError(f"Expected show to be {' or '.join(SHOWS)}, but got '{show}'.")
    found = [_table(own, (rows, columns), options, key, show) for own in comparable(groups, (rows, columns))]
    kept = [one for one in found if one.measured]
    if not kept:
        name = " ".join(filter(None, key)) if key else "the headline number of its task"
        raise UserError(f"None of the {len(groups)} groups picked has {name}; pick others, or run them first.")
    return kept


def comparable(groups: Sequence[Group], axes: Sequence[str]) -> list[list[Group]]:
    """Return the groups in blocks that differ in what goes with the axes alone, in the order of the groups."""
    free = [block for axis in axes for block in VARYING[axis]]
    same: dict[tuple[str, ...], list[Group]] = {}
    for one in groups:
        facts = [one.facts[name] for name in SAID if name not in axes]
        headline = headline_of(one.facts["task"], one.facts["modality"]) if "dataset" in axes else ()
        same.setdefault((shared(one, free, axes), *facts, *headline), []).append(one)
    return list(same.values())


def common(groups: Sequence[Group], axes: Sequence[str], options: Options) -> tuple[dict[str, str], list[str]]:
    """Return the facts of a block of groups, and its options that differ from the defaults."""
    free = [block for axis in axes for block in VARYING[axis]]
    facts = {name: fact(groups[0], name) for name in ("task", *SAID) if name not in axes}
    if (precision := fact(groups[0], "precision")) not in ("", "float32") and "precision" not in axes:
        facts["precision"] = precision
    said = [without_folders(word) for word in options(groups[0])
            if word.partition("=")[0].partition(".")[0] not in free]  # fmt: skip
    return facts, said


def parted(tables: Sequence[tuple[Mapping[str, str], Sequence[str]]]) -> str:
    """Return what differs between blocks of groups, so that they are no one table; empty for a single one."""
    names = [name for name in tables[0][0] if len({facts.get(name) for facts, _ in tables}) > 1]
    words: list[set[str]] = [set(said) for _, said in tables]
    names += sorted({word.partition("=")[0] for said in words for word in said - words[0].intersection(*words)})
    return ", ".join(names) or ("the configuration" if len(tables) > 1 else "")


def _table(groups: Sequence[Group], by: tuple[str, str], options: Options, key: Key | None, show: str) -> Crosstab:
    named = labels(groups, by, options)
    numbers = {one.group_id: number_of(one, key) for one in groups}
    known = [one for one in numbers.values() if one is not None and one.seeds]
    if all(math.isnan(one.score.lift) for one in known):
        show = "value"
    cells = {(named[one.group_id][0], named[one.group_id][1]): Cell(one, numbers[one.group_id], show) for one in groups}
    facts, said = common(groups, by, options)
    return Crosstab(
        by=by,
        rows=sorted({row for row, _ in cells}),
        columns=sorted({column for _, column in cells}),
        cells=cells,
        key=key or (known[0].key if known else headline_of(groups[0].facts["task"], groups[0].facts["modality"])),
        show=show,
        unit=known[0].score.unit if known else "",
        facts=facts,
        options=said,
    )
