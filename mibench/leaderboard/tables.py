"""Tables of rows as the leaderboard holds them: strings stand once, and equal rows give equal bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.files import written_safely
from mibench.leaderboard.shards import schema

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

#: How the rows of one cell are ordered; cells are ordered by id.
ORDER = ("metric", "variant", "evaluator")


def no_rows() -> pa.Table:
    """Return a table without rows (``empty_table`` would import pandas)."""
    import pyarrow as pa

    return pa.Table.from_batches([], schema())


def encoded(table: pa.Table) -> pa.Table:
    """Return the table with every string column dictionary-encoded: a configuration stands once, not in every row."""
    import pyarrow as pa

    table = table.combine_chunks()  # chunk by chunk the dictionaries would have to be unified, which is quadratic
    for index, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            table = table.set_column(index, field.name, table.column(index).dictionary_encode())
    return table


def decoded(table: pa.Table, name: str) -> pa.Array:
    """Return a string column as plain strings, shape ``(rows,)``."""
    import pyarrow as pa

    return table[name].cast(pa.string()).combine_chunks()


def codes_of(table: pa.Table, name: str) -> tuple[pa.Array, NDArray[np.int64]]:
    """Return the distinct values of a string column, some perhaps unused, and every row's position among them."""
    import numpy as np
    import pyarrow as pa

    column = table[name] if pa.types.is_dictionary(table[name].type) else table[name].dictionary_encode()
    if column.null_count:
        column = column.cast(pa.string()).fill_null("").dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    if isinstance(whole, pa.ChunkedArray):  # what no chunk at all combines to
        whole = pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.nulls(0, whole.type)
    return whole.dictionary, plain_numbers(whole.indices).astype(np.int64)


def integers(values: NDArray[Any]) -> pa.Array:
    """Return a numpy array of integers as an Arrow array of its type; ``pa.array`` would import pandas for it."""
    import numpy as np
    import pyarrow as pa

    kept = np.ascontiguousarray(values)
    return pa.Array.from_buffers(pa.from_numpy_dtype(kept.dtype), len(kept), [None, pa.py_buffer(kept)])


def plain_numbers(array: pa.Array) -> NDArray[Any]:
    """Return an Arrow array of numbers as a numpy array, NaN where one is missing (``to_numpy`` imports pandas)."""
    import numpy as np

    if not len(array):
        return np.empty(0, dtype=np.float64)
    return np.from_dlpack(array.cast("float64").fill_null(float("nan")) if array.null_count else array)


def cells_of(table: pa.Table) -> pa.Array:
    """Return the ids of the cells in a table."""
    import pyarrow.compute as pc

    return pc.unique(decoded(table, "cell_id"))


def without(table: pa.Table, cells: pa.Array) -> pa.Table:
    """Return the rows of all other cells."""
    import pyarrow.compute as pc

    return table.filter(pc.invert(pc.is_in(decoded(table, "cell_id"), value_set=cells)))


def in_order(table: pa.Table) -> pa.Table:
    """Return encoded rows sorted by cell, metric, variant and evaluator, in one chunk."""
    import numpy as np

    table = table.unify_dictionaries().combine_chunks()
    keys = []
    for name in ("cell_id", *ORDER):
        values, codes = codes_of(table, name)
        words = values.to_pylist()
        rank = np.empty(len(words), dtype=np.int64)
        rank[sorted(range(len(words)), key=words.__getitem__)] = np.arange(len(words))
        keys.append(rank[codes])
    return table.take(integers(np.lexsort(keys[::-1]))).combine_chunks()


def write_table(path: Path, table: pa.Table) -> None:
    """Write rows as parquet, atomically; equal rows give equal bytes, however they were read."""
    import pyarrow.parquet as pq

    with written_safely(path) as temporary:
        pq.write_table(
            _canonical(table), temporary, compression="zstd", dictionary_pagesize_limit=2**28, store_schema=False
        )


def _canonical(table: pa.Table) -> pa.Table:
    """Return the rows with dictionaries of the values that occur, in the order in which they occur."""
    import numpy as np
    import pyarrow as pa

    for index, name in enumerate(table.schema.names):
        if not pa.types.is_dictionary(table.schema.field(name).type):
            continue
        values, codes = codes_of(table, name)
        used, first, place = np.unique(codes, return_index=True, return_inverse=True)
        order = np.argsort(first)
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        dictionary = values.take(integers(used[order]))
        column = pa.DictionaryArray.from_arrays(integers(rank[place].astype(np.int32)), dictionary)
        table = table.set_column(index, name, column)
    return table
