"""``leaderboard.parquet``: rows of cells and of groups of seeds, with the columns that a pivot table needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mibench.leaderboard.groups import COST, FACTS, RUN, Group
from mibench.leaderboard.rows import LISTS
from mibench.leaderboard.shards import schema
from mibench.leaderboard.tables import decoded, encoded

if TYPE_CHECKING:
    import pyarrow as pa

#: What stands in ``row``: one run, or the mean over the runs that differ in the seed alone.
KINDS = ("cell", "group")


def pivot_table(table: pa.Table, groups: Sequence[Group], options: Mapping[str, Sequence[str]]) -> pa.Table:
    """Return the rows without lists, and one more row per number of every group.

    Added columns: ``row`` (``cell`` or ``group``), ``seeds`` (seeds behind the number), and what of attack and defense
    differs from the defaults (``attack_options``, ``defense_options``). A group's row has neither cell nor seed.

    Args:
        table: Rows of cells.
        groups: Their groups.
        options: By group id, what differs from the defaults, as words of a command line.
    """
    import pyarrow as pa

    of_groups = pa.Table.from_pylist([row for group in groups for row in _rows(group)], schema=_schema())
    both = pa.concat_tables([_flat(table), of_groups])
    ids = decoded(both, "group_id").to_pylist()
    for axis in ("attack", "defense"):
        words = {group: _own(axis, said) for group, said in options.items()}
        column = pa.array([words.get(one, "") for one in ids], pa.string())
        both = both.append_column(f"{axis}_options", column)
    return encoded(both)


def _schema() -> pa.Schema:
    import pyarrow as pa

    kept = [field for field in schema() if field.name not in LISTS]
    return pa.schema([*kept, pa.field("row", pa.string()), pa.field("seeds", pa.int64())])


def _flat(table: pa.Table) -> pa.Table:
    """Return the rows of cells without lists, marked as such."""
    import pyarrow as pa

    flat = table.drop_columns(list(LISTS))
    flat = flat.append_column("row", pa.repeat(pa.scalar(KINDS[0]), len(flat)))
    flat = flat.append_column("seeds", pa.repeat(pa.scalar(1, pa.int64()), len(flat)))
    return flat.cast(_schema())


def _rows(group: Group) -> list[dict[str, Any]]:
    shared: dict[str, Any] = {name: group.facts[name] for name in (*FACTS, *RUN)}
    shared |= {name: group.cost[name] for name in COST}
    shared |= {"queries": round(shared["queries"]), "gradient_evals": round(shared["gradient_evals"])} if (
        group.measured
    ) else {"queries": 0, "gradient_evals": 0}  # fmt: skip
    shared |= {"schema_version": int(shared["schema_version"]), "group_id": group.group_id, "cell_id": ""}
    shared |= {"config": "", "row": KINDS[1]}
    return [shared | vars(number.score) | {"seeds": number.seeds} for number in group.numbers]


def _own(axis: str, words: Sequence[str]) -> str:
    """Return the options of one axis as ``steps=300, loss=poincare``."""
    begin = f"{axis}."
    return ", ".join(word.removeprefix(begin) for word in words if word.startswith(begin))
