"""Reading shards and studies: once each, kept in a cache, set aside by name where they cannot be read."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError
from mibench.files import written_safely
from mibench.leaderboard.rows import SCHEMA_VERSION
from mibench.leaderboard.shards import completed, other_schema, schema, untrue
from mibench.leaderboard.tables import ORDER, cells_of, encoded, in_order, no_rows, without
from mibench.limits import parquet_rows, reason_of

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("mibench")

STATUSES = ("ok", "skipped", "failed")

#: Columns by which rows are told apart, all of which every row has.
IDENTIFYING = ("cell_id", "group_id", "seed", "metric", "variant", "evaluator", "status", "config")

#: Characters of the SHA-256 at the head of the cache, which also align what follows.
DIGEST = 64


@dataclass(frozen=True)
class Collected:
    """Rows, and the files that gave none.

    Attributes:
        table: One row per measured number with the columns of :func:`mibench.leaderboard.shards.schema`; strings are
            dictionary-encoded. Cells are sorted by id, the rows of a cell by metric, variant and evaluator.
        set_aside: Why a file was left out, by its name.
    """

    table: pa.Table
    set_aside: Mapping[str, str]


def collect_shards(results: Path) -> Collected:
    """Return the rows of all shards, reading only those that are new or changed since the last time.

    A shard is known by name, size and time of change. A truncated, foreign or drifting one is set aside; the others
    stand. The cache is a copy: deleting it, or any damage to it, costs time and changes nothing, and where it cannot be
    written the shards are read again next time.
    """
    import pyarrow as pa

    cache = results / "local" / "cache" / "shards.arrow"
    there = _stats(results / "shards")
    known, kept = _cached(cache, there)
    fresh: list[pa.Table] = []
    unread = sorted(there.keys() - known.keys())
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding releases Python's lock, the rest contends for it
        for name, table in zip(unread, pool.map(_checked, (results / "shards" / name for name in unread)), strict=True):
            known[name] = {"rows": 0, "reason": table} if isinstance(table, str) else {"rows": len(table), "reason": ""}
            if not isinstance(table, str):
                fresh.append(table)
    if fresh or kept is None:
        added = encoded(pa.concat_tables(fresh) if fresh else no_rows())
        kept = in_order(added if kept is None else pa.concat_tables([kept, added]))
    assert kept is not None
    index = {name: {**known[name], "stat": there[name]} for name in sorted(there, key=lambda name: Path(name).stem)}
    if there or cache.exists():
        with contextlib.suppress(OSError):
            _write_cache(cache, kept, index)
    return Collected(kept, {name: one["reason"] for name, one in index.items() if one["reason"]})


def collect_studies(results: Path) -> Collected:
    """Return the rows of the committed studies; a cell that stands in several is taken from the first by name."""
    import pyarrow as pa

    tables: list[pa.Table] = []
    aside: dict[str, str] = {}
    for path in sorted((results / "studies").glob("*.parquet")):
        try:
            table = encoded(readable(path))
        except UserError as reason:
            aside[path.name] = str(reason)
            continue
        for before in list(tables):
            table = without(table, cells_of(before))
        tables.append(table)
    if not tables:
        return Collected(encoded(no_rows()), aside)
    return Collected(in_order(pa.concat_tables(tables)), aside)


def combined(studies: Collected, own: Collected) -> Collected:
    """Return one's own shards beside the studies; a cell that stands in both is one's own."""
    import pyarrow as pa

    rest = without(studies.table, cells_of(own.table)) if len(studies.table) else studies.table
    table = in_order(pa.concat_tables([rest, own.table])) if len(rest) else own.table
    return Collected(table, {**studies.set_aside, **own.set_aside})


def told_aside(collected: Collected) -> Collected:
    """Return what was collected, and say which files were set aside, a line each."""
    for name, reason in collected.set_aside.items():
        log.warning("set aside %s: %s", name, reason)
    return collected


def everything(results: Path) -> Collected:
    """Return the rows of studies and of one's own shards, and say which files were set aside."""
    return told_aside(combined(collect_studies(results), collect_shards(results)))


def checked(path: Path) -> pa.Table:
    """Return the rows of one shard.

    Raises:
        UserError: If it cannot be read, is empty or is the shard of another cell.
    """
    import pyarrow.compute as pc

    table = readable(path)
    if (cells := pc.unique(table["cell_id"]).to_pylist()) != [path.stem]:
        raise UserError(f"not the shard of one cell of its name (it holds {', '.join(map(str, cells)) or 'no row'})")
    return table


def _checked(path: Path) -> pa.Table | str:
    try:
        return checked(path)
    except UserError as reason:
        return str(reason)


def readable(path: Path) -> pa.Table:
    """Return the rows of a parquet file of today's schema.

    Raises:
        UserError: If it is damaged, has other columns or types, or holds rows that say nothing known.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        table = completed(parquet_rows(path))
        table.validate(full=True)
    except UserError as error:
        if path.is_symlink() and not path.exists():
            raise UserError("not a readable shard (a link to a file that is not there)") from None
        raise UserError(f"not a readable shard ({str(error).removeprefix(f'{path} ').rstrip('.')})") from error
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"not a readable shard ({reason_of(error)})") from error
    if wrong := other_schema(table):
        raise UserError(wrong)
    if empty := [name for name in IDENTIFYING if table[name].null_count]:
        raise UserError(f"rows without {' and '.join(empty)}")
    if len(table) and (wrong := untrue(table)):
        raise UserError(wrong)
    if (newest := pc.max(table["schema_version"]).as_py() or 0) > SCHEMA_VERSION:
        raise UserError(f"another schema (version {newest}, and this mibench reads up to {SCHEMA_VERSION})")
    keys = [table[name].to_pylist() for name in ("cell_id", *ORDER)]
    if (twice := len(table) - len(set(zip(*keys, strict=True)))) > 0:
        raise UserError(f"doubled rows ({twice} of its numbers stand there more than once)")
    if strange := sorted(set(pc.unique(table["status"]).to_pylist()) - set(STATUSES), key=str):
        raise UserError(f"unknown status {strange[0]!r}")
    for config in pc.unique(table["config"]).to_pylist():
        parsed(config)
    return table.replace_schema_metadata(None)


def parsed(config: str | None) -> dict[str, Any]:
    """Return a stored configuration.

    Raises:
        UserError: If it is no JSON object.
    """
    try:
        value = json.loads(config or "")
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError("a configuration that is no JSON object")
    return value


def _stats(folder: Path) -> dict[str, list[int]]:
    """Return size and time of change (ns) by file name, of the shards in a folder."""
    found: dict[str, list[int]] = {}
    try:
        with os.scandir(folder) as files:
            for file in files:
                if file.name.endswith(".parquet") and file.name[0] != ".":
                    try:
                        facts = file.stat()
                    except OSError:  # a link to nothing or to itself, which reading says; or it was removed just now
                        if not file.is_symlink():
                            continue
                        facts = file.stat(follow_symlinks=False)
                    found[file.name] = [facts.st_size, facts.st_mtime_ns]
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return found


def _fingerprint() -> str:
    """What the cache depends on beside the shards: the schema and the rules by which shards are set aside."""
    here = Path(__file__)
    source = here.read_bytes() + here.with_name("tables.py").read_bytes()
    return hashlib.sha256(str(schema()).encode() + source).hexdigest()


def _cached(cache: Path, there: Mapping[str, list[int]]) -> tuple[dict[str, dict[str, Any]], pa.Table | None]:
    """Return what is known of unchanged shards, by name, and their rows; nothing where there is no usable cache."""
    import pyarrow as pa

    try:
        raw = pa.py_buffer(cache.read_bytes())
        if hashlib.sha256(raw[DIGEST:]).hexdigest().encode() != bytes(raw[:DIGEST]):
            return {}, None
        table = pa.ipc.open_file(raw.slice(DIGEST)).read_all()
        meta = table.schema.metadata
        if meta[b"fingerprint"].decode() != _fingerprint():
            return {}, None
        index: dict[str, dict[str, Any]] = json.loads(meta[b"index"])
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException):
        return {}, None
    known, kept, start, stop = {}, [], 0, 0
    for name, one in index.items():
        if there.get(name) == one["stat"]:
            known[name] = {"rows": one["rows"], "reason": one["reason"]}
        else:
            kept.append(table.slice(start, stop - start))
            start = stop + one["rows"]
        stop += one["rows"]
    kept.append(table.slice(start))
    whole = table if len(kept) == 1 and not start else pa.concat_tables(kept).combine_chunks()
    return known, whole.replace_schema_metadata(None)


def _write_cache(cache: Path, table: pa.Table, index: Mapping[str, Any]) -> None:
    import pyarrow as pa

    meta = {"fingerprint": _fingerprint(), "index": json.dumps(index)}
    whole, content = table.replace_schema_metadata(meta), pa.BufferOutputStream()
    with pa.ipc.new_file(content, whole.schema) as sink:
        sink.write_table(whole)
    raw = content.getvalue()
    if cache.is_dir():
        shutil.rmtree(cache)
    with written_safely(cache) as temporary, temporary.open("wb") as file:
        file.write(hashlib.sha256(raw).hexdigest().encode())
        file.write(raw)
