"""Shards: one parquet file per cell, replaced atomically, read with the schema of this version."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.card import MetricCard
from mibench.errors import UserError, printable
from mibench.leaderboard.rows import ADDED, COLUMNS, RETIRED, arrow_type
from mibench.limits import parquet_rows

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


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
    """Write the rows of one cell in place of whatever was there, and return the path.

    Raises:
        UserError: If the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = shard_path(results, cell_id)
    table = pa.Table.from_pylist([dict(row) for row in rows], schema=schema())
    temporary = path.with_name(f".{cell_id}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # of ten rows a dictionary and statistics take more to read than they save
        pq.write_table(table, temporary, use_dictionary=False, write_statistics=False, store_schema=False)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(
            f"The results folder {results} cannot be written ({error.strerror}); set paths.results to a writable one."
        ) from error
    return path


def read_shard(path: Path) -> pd.DataFrame:
    """Return the rows of one shard.

    Raises:
        UserError: If the file is no shard of this schema.
    """
    import pyarrow as pa

    try:
        table = completed(parquet_rows(path))
    except (UserError, pa.ArrowException, KeyError) as error:
        reason = str(error).removeprefix(f"{path} ").rstrip(".")
        raise UserError(f"{path} is not a readable shard ({reason}); delete it and run the cell again.") from error
    if table.schema.names != schema().names:
        odd = sorted(set(table.schema.names) ^ set(schema().names))
        raise UserError(f"{path} has another schema (columns that differ: {', '.join(odd)}); run the cell again.")
    if wrong := untrue(table):
        raise UserError(f"{path} is no shard ({wrong}); run the cell again.")
    frame: pd.DataFrame = table.replace_schema_metadata(None).to_pandas()
    for name in (field.name for field in schema() if str(field.type) == "string" and field.name != "config"):
        frame[name] = frame[name].map(printable)
    return frame


def untrue(table: pa.Table) -> str:
    """Return what is wrong with rows that have today's columns, as a clause; empty where nothing is."""
    if not len(table):
        return "it has no row"
    for field in schema():
        column = table[field.name]
        if not column.type.equals(field.type):
            return f"the column {field.name} holds {column.type} in place of {field.type}"
        if column.null_count and str(field.type) in ("string", "int64"):
            return f"a row has no {field.name}"
    return ""
