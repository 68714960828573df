"""Shards: one parquet file per cell, replaced atomically, read with the schema of this version.

Rows that were measured are never replaced by a failed or a skipped row.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.card import MetricCard
from mibench.errors import UserError, printable, told
from mibench.files import unwritable, write_bytes
from mibench.leaderboard.rows import ADDED, COLUMNS, RETIRED, arrow_type
from mibench.limits import parquet_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger("mibench")


@lru_cache(maxsize=1)
def schema() -> pa.Schema:
    """Return the explicit Arrow schema of a shard; an all-empty column keeps its type."""
    import pyarrow as pa

    def kind(name: str) -> pa.DataType:
        plain = {"string": pa.string(), "int64": pa.int64(), "float64": pa.float64(), "bool": pa.bool_()}
        word = arrow_type(name)
        return plain[word] if word in plain else pa.list_(pa.float32() if "float32" in word else pa.string())

    return pa.schema([(name, kind(name)) for name in COLUMNS])


def completed(table: pa.Table) -> pa.Table:
    """Return the rows of an earlier version with the columns of today.

    What was added since is empty; ``samples`` is what ``n`` counted then, ``share`` is what the metric's card says, and
    ``schema_version`` is 1.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    names = table.schema.names
    if "schema_version" in names or not set(COLUMNS) - set(ADDED) <= set(names):
        return table  # of today, or of somebody else
    empty: dict[str, Any] = {"int64": 0, "float64": float("nan"), "bool": False, "string": ""}
    columns = []
    for field in schema():
        if field.name == "samples":
            column = table["n"]
        elif field.name == "share":
            column = pc.is_in(table["metric"], value_set=pa.array(sorted(_shares()), pa.string()))
        elif field.name in names:
            column = table[field.name]
        else:
            value = 1 if field.name == "schema_version" else empty.get(str(field.type).replace("double", "float64"), [])
            column = pa.repeat(pa.scalar(value, field.type), len(table))
        columns.append(column)
    strange = [name for name in names if name not in COLUMNS and name not in RETIRED]
    whole = pa.Table.from_arrays(columns, names=list(COLUMNS))
    for name in strange:
        whole = whole.append_column(name, table[name])
    return whole


@lru_cache(maxsize=1)
def _shares() -> frozenset[str]:
    """Return the metrics whose values are shares, by their cards."""
    from mibench.planning.catalogue import entries

    cards = [one.card for one in entries("metric")]
    return frozenset(card.name for card in cards if isinstance(card, MetricCard) and card.share)


def shard_path(results: Path, cell_id: str) -> Path:
    """Return where the shard of a cell lies."""
    return results / "shards" / f"{cell_id}.parquet"


def write_shard(results: Path, cell_id: str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write the rows of one cell in place of those that were there, and return the path.

    Rows that were measured before stand in place of new ones of the same number that were not; where none of the new
    ones was measured, the file is left as it is. A file that cannot be read is set aside by name.

    Raises:
        UserError: If the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = shard_path(results, cell_id)
    before: list[dict[str, Any]] = []
    if path.exists():
        try:
            before = read_table(path).to_pylist()
        except UserError as error:
            aside = set_aside(results, path)
            log.warning("%s cannot be read (%s); it is set aside as %s.", path, str(error)[:120], aside)
    stand = keeping_measured(before, rows)
    if not stand:
        return path
    content = io.BytesIO()
    table = pa.Table.from_pylist([dict(row) for row in stand], schema=schema())
    # of ten rows a dictionary and statistics take more to read than they save
    pq.write_table(table, content, use_dictionary=False, write_statistics=False, store_schema=False)
    try:
        write_bytes(path, content.getvalue())
    except OSError as error:
        raise unwritable("results folder", results, "paths.results", error) from error
    return path


def keeping_measured(
    before: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]
) -> Sequence[Mapping[str, Any]]:
    """Return new rows of a cell, with those measured before in place of new ones that were not measured.

    Nothing is returned where rows were measured before and none of the new ones was. A metric that was not measured at
    all leaves one row without variant and evaluator, in place of which all its earlier ones stand.
    """

    def key(row: Mapping[str, Any]) -> tuple[str, str, str]:
        return row["metric"], row["variant"], row["evaluator"]

    measured = {key(row): row for row in before if row["status"] == "ok"}
    fresh = {row["metric"] for row in rows if row["status"] == "ok"}
    if not measured:
        return rows
    if not fresh:
        return []
    lost = {row["metric"] for row in rows} - fresh
    kept = [row for (metric, _, _), row in measured.items() if metric in lost]
    gone = {row["metric"] for row in kept}
    stand = [measured.get(key(row), row) if row["status"] != "ok" else row for row in rows if row["metric"] not in gone]
    for row in rows:
        if row["status"] != "ok" and (row["metric"] in gone or key(row) in measured):
            name = " ".join(filter(None, key(row)))
            log.warning("%s: not measured now (%s); the row measured before is kept.", name, row["reason"])
    return [*stand, *kept]


def set_aside(results: Path, path: Path) -> Path:
    """Move a file that cannot be read to the first free name in ``<results>/damaged``, and return that.

    Raises:
        UserError: If the folder cannot be written.
    """
    names = itertools.chain([path.name], (f"{path.stem}-{number}{path.suffix}" for number in itertools.count(2)))
    aside = next(one for name in names if not (one := results / "damaged" / name).exists())
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        path.rename(aside)
    except OSError as error:
        raise unwritable("results folder", results, "paths.results", error) from error
    return aside


def read_shard(path: Path) -> pd.DataFrame:
    """Return the rows of one shard.

    Raises:
        UserError: If the file is no shard of this schema.
    """
    try:
        table = read_table(path)
    except UserError as error:
        raise UserError(
            f"{path} is not a readable shard ({str(error)[:160]}); the command of its cell runs it again."
        ) from error
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    for name in (field.name for field in schema() if str(field.type) == "string" and field.name != "config"):
        frame[name] = frame[name].map(printable)
    return frame


def read_table(path: Path) -> pa.Table:
    """Return the rows of one shard.

    Raises:
        UserError: If it is none of this schema, or another cell's, as a clause.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = completed(parquet_rows(path))
    except UserError as error:
        raise UserError(str(error).removeprefix(f"{path} ").rstrip(".")) from error
    except (pa.ArrowException, KeyError) as error:
        raise UserError(told(error)) from error
    if wrong := other_schema(table) or untrue(table):
        raise UserError(wrong)
    if (cells := pc.unique(table["cell_id"]).to_pylist()) != [path.stem]:
        raise UserError(f"it holds the rows of {', '.join(map(str, cells)) or 'no cell'}")
    return table


def other_schema(table: pa.Table) -> str:
    """Return in which columns or types rows differ from today's schema, as a clause; empty where they do not."""
    if table.schema.names != schema().names:
        odd = sorted(set(table.schema.names) ^ set(schema().names)) or ["their order"]
        return f"another schema, columns that differ: {', '.join(odd)}"
    if not table.schema.equals(schema()):
        drifted = [field.name for field in schema() if not table.schema.field(field.name).equals(field)]
        return f"another schema, types that differ: {', '.join(drifted)}"
    return ""


def untrue(table: pa.Table) -> str:
    """Return what is wrong with rows of today's schema, as a clause; empty where nothing is."""
    if not len(table):
        return "it has no row"
    for field in schema():
        if table[field.name].null_count and str(field.type) in ("string", "int64"):
            return f"a row has no {field.name}"
    return ""
