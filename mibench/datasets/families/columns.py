"""The columns of records that stand in the header of a captured update's file.

The header of a safetensors file has a map of words to words; its entry ``columns`` is JSON, a list of one object per
column, in the order of the model's input::

    {"name": "age", "low": 17, "high": 90, "mean": 38.4, "std": 13.2}
    {"name": "sex", "categories": ["Female", "Male"], "mean": [0.32, 0.68], "std": [0.47, 0.47]}

A column with ``categories`` holds their codes, in this order; any other holds numbers. ``low`` and ``high`` are the
published bounds of a number. The model takes categories one-hot and numbers as they are, minus ``mean``, over ``std``;
0 and 1 stand where they are missing. Nothing of the header is executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from mibench.data import Column
from mibench.errors import UserError, nearest
from mibench.limits import safetensors_of

#: What is said of a column.
KEYS = ("name", "categories", "low", "high", "mean", "std")


@dataclass(frozen=True)
class Schema:
    """The columns of records, and how a model scales them.

    Attributes:
        columns: The schema.
        mean: What the model's input is minus, one value per encoded column (category or number).
        std: What it is then divided by, likewise.
        spread: Standard deviation of every number, 1 for categories, shape ``(columns,)``; None where one is missing.
    """

    columns: tuple[Column, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    spread: Tensor | None

    def check(self, records: Tensor, key: str) -> None:
        """Refuse records ``(N, columns)`` that are none of the schema; ``key`` is the option that they come from.

        Raises:
            UserError: If a value is not finite, or no code of its column's categories.
        """
        for column, values in zip(self.columns, records.unbind(1), strict=True):
            codes = torch.arange(len(column.values), dtype=values.dtype)
            if not bool((torch.isin(values, codes) if column.categorical else values.isfinite()).all()):
                wanted = f"codes from 0 to {len(codes) - 1}" if column.categorical else "finite numbers"
                raise UserError(f"Expected the records of {key} to hold {wanted} in column '{column.name}'.")


def schema_of(file: Path) -> Schema | None:
    """Return what the header of a safetensors file says of columns; None where it says nothing.

    Raises:
        UserError: If it is malformed, in one sentence that names the column.
    """
    said = safetensors_of(file, f"dataset.file={file}")[1].get("columns")
    if said is None:
        return None
    where = f"in the header of dataset.file={file}"
    try:
        listed = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise UserError(f"The entry 'columns' {where} is no JSON; write it with json.dumps.") from error
    if not isinstance(listed, list) or not listed:
        raise UserError(f"Expected the entry 'columns' {where} to be a list of one object per column.")
    parts = [_Column.of(one, f"column {number} {where}") for number, one in enumerate(listed, 1)]
    names = [one.column.name for one in parts]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"Expected the columns {where} to have names of their own, but '{twice}' stands there twice.")
    return Schema(
        tuple(one.column for one in parts),
        tuple(value for one in parts for value in one.mean),
        tuple(value for one in parts for value in one.std),
        torch.tensor([one.spread for one in parts]) if all(one.spread for one in parts) else None,
    )


@dataclass(frozen=True)
class _Column:
    """One column as it was read; ``spread`` is 0 where nobody said it."""

    column: Column
    mean: list[float]
    std: list[float]
    spread: float

    @classmethod
    def of(cls, said: Any, where: str) -> _Column:
        if not isinstance(said, Mapping):
            raise UserError(f'Expected {where} to be an object such as {{"name": "age", "low": 17}}.')
        if unknown := [key for key in said if key not in KEYS]:
            hint = nearest(unknown[0], KEYS, f"known: {', '.join(KEYS)}.")
            raise UserError(f"There is no key {unknown[0]!r} of {where}; {hint}")
        name, categories = said.get("name"), said.get("categories")
        if not _word(name):
            raise UserError(f"Expected 'name' of {where} to be a word.")
        where = f"{where} ('{name}')"
        if categories is None:
            low, high = (None if said.get(key) is None else _number(said[key], key, where) for key in ("low", "high"))
            if low is not None and high is not None and low >= high:
                raise UserError(f"Expected 'low' of {where} to be less than 'high', but got {low:g} and {high:g}.")
            mean, std = (_number(said.get(key, otherwise), key, where) for key, otherwise in (("mean", 0), ("std", 1)))
            return cls(Column(name, (), low, high), [mean], [std], std if "std" in said else 0.0)
        if not isinstance(categories, list) or not categories or not all(map(_word, categories)):
            raise UserError(f"Expected 'categories' of {where} to be a list of words.")
        if len(set(categories)) < len(categories):
            raise UserError(f"Expected 'categories' of {where} to differ.")
        if bounds := [key for key in ("low", "high") if said.get(key) is not None]:
            raise UserError(f"Expected '{bounds[0]}' of a number alone, but {where} holds categories.")
        scale = {}
        for key, otherwise in (("mean", 0), ("std", 1)):
            values = said.get(key, [otherwise] * len(categories))
            if not isinstance(values, list) or len(values) != len(categories):
                raise UserError(f"Expected '{key}' of {where} to list one number per category ({len(categories)}).")
            scale[key] = [_number(value, key, where) for value in values]
        return cls(Column(name, tuple(categories)), scale["mean"], scale["std"], 1.0)


def _word(said: Any) -> TypeGuard[str]:
    """Return whether it can stand in a sentence and on a screen."""
    return isinstance(said, str) and bool(said) and said.isprintable()


def _number(said: Any, key: str, where: str) -> float:
    """Return a finite number of float32, which for ``std`` is above 0."""
    largest = torch.finfo(torch.float32).max
    fits = isinstance(said, int | float) and not isinstance(said, bool) and abs(said) <= largest
    if not fits or (key == "std" and not torch.tensor(float(said)) > 0):
        raise UserError(f"Expected '{key}' of {where} to be a finite number{' above 0' if key == 'std' else ''}.")
    return float(said)
