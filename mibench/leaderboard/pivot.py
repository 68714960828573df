"""``leaderboard.parquet``: rows of cells and of groups of seeds, with the columns that a pivot table needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from mibench.leaderboard.described import TRUTHS, described
from mibench.leaderboard.groups import COST, Group
from mibench.leaderboard.rows import LISTS
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import schema
from mibench.leaderboard.tables import codes_of, decoded, encoded, integers

if TYPE_CHECKING:
    import pyarrow as pa

#: What stands in ``row``: one run, or the mean over the runs that differ in the seed alone.
KINDS = ("cell", "group")

#: What the row of a group says of a single cell.
NOTHING = {"cell_id": "", "config": ""}


def pivot_table(table: pa.Table, groups: Sequence[Group], options: Mapping[str, Sequence[str]]) -> pa.Table:
    """Return the rows without lists, and one more row per number of every group.

    Added columns: ``row`` (``cell`` or ``group``), ``seeds`` (seeds behind the number), what of attack and defense
    differs from the defaults (``attack_options``, ``defense_options``), and what
    :func:`mibench.leaderboard.described.described` says. A group's row has neither cell nor seed.

    Args:
        table: Rows of cells.
        groups: Their groups.
        options: By group id, what differs from the defaults, as words of a command line.
    """
    import pyarrow as pa

    flat = table.drop_columns(list(LISTS))
    flat = flat.append_column("row", pa.repeat(pa.scalar(KINDS[0]), len(flat)))
    flat = flat.append_column("seeds", pa.repeat(pa.scalar(1, pa.int64()), len(flat)))
    both = pa.concat_tables([encoded(flat), encoded(_of_groups(groups))]).unify_dictionaries().combine_chunks()
    dictionary, codes = codes_of(both, "group_id")
    for axis in ("attack", "defense"):
        words = pa.array([own_options(axis, options.get(group, ())) for group in dictionary.to_pylist()], pa.string())
        both = both.append_column(f"{axis}_options", words.take(integers(codes)).dictionary_encode())
    for name, of_group in described(groups).items():
        kind = pa.bool_() if name in TRUTHS else pa.string()
        told = pa.array([of_group.get(group) for group in dictionary.to_pylist()], kind).take(integers(codes))
        if name in both.schema.names:  # where rows do not say it themselves
            both = both.set_column(both.schema.get_field_index(name), name, _filled(both, name, told))
        else:
            both = both.append_column(name, told if name in TRUTHS else told.dictionary_encode())
    return both


def _filled(table: pa.Table, name: str, told: pa.Array) -> pa.Array:
    """Return a column of strings with other ones where it is empty."""
    import pyarrow.compute as pc

    own = decoded(table, name)
    return pc.if_else(pc.equal(pc.fill_null(own, ""), ""), told, own).dictionary_encode()


def _of_groups(groups: Sequence[Group]) -> pa.Table:
    """Return one row per number of every group, column by column."""
    import numpy as np
    import pyarrow as pa

    numbers = [number for group in groups for number in group.numbers]
    owner = integers(np.repeat(np.arange(len(groups)), [len(group.numbers) for group in groups]).astype(np.int64))
    of_score = {field.name for field in fields(Score)}
    columns = []
    for field in schema():
        name, kind = field.name, field.type
        if name in LISTS:
            continue
        if name in of_score:
            columns.append(pa.array([getattr(number.score, name) for number in numbers], kind))
        else:
            columns.append(pa.array([_fact(group, name) for group in groups], kind).take(owner))
    columns += [pa.repeat(pa.scalar(KINDS[1]), len(numbers)), pa.array([one.seeds for one in numbers], pa.int64())]
    names = [field.name for field in schema() if field.name not in LISTS]
    return pa.Table.from_arrays(columns, names=[*names, "row", "seeds"])


def _fact(group: Group, name: str) -> Any:
    """Return what a column holds of a group itself; None where that is a matter of its cells."""
    if name == "group_id":
        return group.group_id
    if name == "schema_version":
        return int(group.facts[name])
    if name in ("queries", "gradient_evals"):
        return round(group.cost[name]) if group.measured else 0
    if name in group.facts:
        return group.facts[name]
    return group.cost[name] if name in COST else NOTHING.get(name)


def own_options(axis: str, words: Sequence[str]) -> str:
    """Return the options of one axis as ``steps=300, loss=poincare``."""
    begin = f"{axis}."
    return ", ".join(word.removeprefix(begin) for word in words if word.startswith(begin))
