"""The closing table of a sweep: what was measured, the strongest evidence first, then what was not, by its reason."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from mibench.card import headline_of
from mibench.cli.table import print_table
from mibench.errors import UserError
from mibench.leaderboard.lines import COLUMNS, NUMBERS, by_column, lines_of, sections
from mibench.leaderboard.shards import read_table, schema, shard_path
from mibench.planning.choices import key_of
from mibench.planning.grid import Overrides, PlannedCell
from mibench.planning.plan import Plan, folder

if TYPE_CHECKING:
    import pyarrow as pa

#: Most lines of one table, reasons, and cells of one reason.
LONGEST, REASONS, NAMED = 100, 20, 5

#: Keys of which the table has a column.
TOLD = ("attack", "defense", "target", "dataset", "seed")

#: Keys that say how a cell is run and nothing of its result.
MACHINE = ("threads", "device", "overwrite", "time_limit", "verbose", "pack", "logger", "paths")

#: A cell of a sweep: its words, its plan, what became of it, and where it was not measured why.
Left = tuple[Overrides, Plan, str, str]


def print_closing(left: Sequence[Left], skipped: Sequence[PlannedCell]) -> None:
    """Print the headline number of every group of seeds, and the reasons of cells that have none.

    Args:
        left: The cells that were run or stood already.
        skipped: The cells that cannot be run.
    """
    unread = {plan.cell_id: plan for _, plan, status, _ in left if status == "ok"}
    there = [(words, plan) for words, plan, status, _ in left if status in ("ok", "failed")]
    if there:
        options = dict(zip((plan.cell_id for _, plan in there), differing([words for words, _ in there]), strict=True))
        for heading, lines in sections(lines_of(_rows(plan for _, plan in there))).items():
            print(f"\n{heading}\n")
            for cell in (cell for line in lines for cell in line.cells):
                unread.pop(cell, None)
            written = [
                (*(one.written(options=options[one.cells[0]])).values(), one.cells[0]) for one in lines[:LONGEST]
            ]
            print_table([(*COLUMNS, "cell"), *written], [COLUMNS.index(name) for name in NUMBERS])
            if len(lines) > LONGEST:
                print(f"{len(lines) - LONGEST} more: python -m mibench leaderboard has them all.\n")
    _print_reasons(
        "measured without the number by which their task is read",
        {
            f"no {' '.join(filter(None, headline_of(task, modality)))}": [
                f"{_named(plan)} (cell {plan.cell_id})"
                for plan in unread.values()
                if _reading(plan) == (task, modality)
            ]
            for task, modality in sorted({_reading(plan) for plan in unread.values()})
        },
    )
    for status in ("failed", "skipped", "elsewhere"):
        reasons: dict[str, list[str]] = {}
        for _, plan, became, reason in left:
            if became == status:
                reasons.setdefault(reason, []).append(f"{_named(plan)} (cell {plan.cell_id})")
        if status == "skipped":
            for one in skipped:
                reasons.setdefault(one.reason, []).append(
                    " ".join(word for word in one.overrides if not of_machine(word))
                )
        _print_reasons(status, reasons)


def differing(cells: Sequence[Overrides]) -> list[dict[str, str]]:
    """Return of every cell the words in which it differs from the others, by the column they belong to.

    >>> differing([("attack=gmi", "defense.a1=1", "seed=0"), ("attack=gmi", "defense.a1=2", "seed=0")])
    [{'defense': 'a1=1'}, {'defense': 'a1=2'}]
    """
    shared = set(cells[0]).intersection(*cells) if cells else set()
    return [
        by_column(word for word in words if word not in shared and key_of(word) not in TOLD and not of_machine(word))
        for words in cells
    ]


def of_machine(word: str) -> bool:
    """Return whether an option says how a cell is run and nothing of its result."""
    return key_of(word).partition(".")[0] in MACHINE


def _rows(plans: Iterable[Plan]) -> pa.Table:
    """Return the rows of the cells that have any."""
    import pyarrow as pa

    tables = [schema().empty_table()]
    for plan in plans:
        with contextlib.suppress(UserError):  # whose reason stands below the table
            tables.append(read_table(shard_path(folder(plan, "results"), plan.cell_id)).replace_schema_metadata(None))
    return pa.concat_tables(tables)


def _reading(plan: Plan) -> tuple[str, str]:
    return plan.cards.attack.task, plan.cards.modalities[0]


def _named(plan: Plan) -> str:
    cards = plan.cards
    return (
        f"{cards.attack.name}, {plan.access}, {cards.defense.name}, {cards.target.name}, {cards.dataset.name}, "
        f"seed {plan.config['seed']}"
    )


def _print_reasons(status: str, reasons: Mapping[str, Sequence[str]]) -> None:
    """Print the cells of one status by their reason, the commonest first; a log's path does not tell two apart."""
    merged: dict[str, tuple[str, list[str]]] = {}
    for reason, cells in reasons.items():
        merged.setdefault(reason.partition(" (log: ")[0], (reason, []))[1].extend(cells)
    if not merged:
        return
    print(f"{sum(len(cells) for _, cells in merged.values())} {status}\n")
    ranked = sorted(merged.values(), key=lambda one: (-len(one[1]), one[0]))
    for reason, cells in ranked[:REASONS]:
        print(f"  {reason}")
        for cell in cells[:NAMED]:
            print(f"    {cell}")
        if len(cells) > NAMED:
            print(f"    and {len(cells) - NAMED} more")
    if len(ranked) > REASONS:
        print(f"  and {len(ranked) - REASONS} more reasons; python -m mibench leaderboard has them all")
    print()
