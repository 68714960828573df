"""The entries of models of records: categories enter one-hot, numbers scaled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from mibench.data import Column
from mibench.entry import Entry


def places(columns: Sequence[Column]) -> Iterator[tuple[Column, slice]]:
    """Yield every column with its place among the encoded ones: one per category, or the number itself."""
    first = 0
    for column in columns:
        size = len(column.values) or 1
        yield column, slice(first, first + size)
        first += size


def encoded_width(columns: Sequence[Column]) -> int:
    """Return the number of encoded columns.

    >>> encoded_width([Column("sex", ("f", "m")), Column("age")])
    3
    """
    return sum(len(column.values) or 1 for column in columns)


def one_hot(columns: Sequence[Column], records: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Return records ``(..., columns)`` with categories one-hot and numbers as they are, shape ``(..., width)``."""
    parts = []
    for position, column in enumerate(columns):
        value = records[..., position]
        hard = nn.functional.one_hot(value.long(), len(column.values)) if column.categorical else value[..., None]
        parts.append(hard.to(dtype))
    return torch.cat(parts, -1)


class RecordEncoder(Entry):
    """Turns raw records into one-hot categories and standardised numbers.

    Means and deviations are those of the training records (:meth:`fit`), stored as buffers.

    Args:
        columns: The schema.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, columns: Sequence[Column]) -> None:
        super().__init__()
        self.columns = tuple(columns)
        self.register_buffer("mean", torch.zeros(len(columns)))
        self.register_buffer("std", torch.ones(len(columns)))
        self.width = encoded_width(columns)

    def fit(self, records: Tensor) -> None:
        """Take mean and deviation of the numeric columns from records of shape ``(N, columns)``."""
        self.mean.copy_(records.float().mean(0))
        self.std.copy_(records.float().std(0).clamp_min(1e-6))

    def canonical(self, records: Tensor) -> Tensor:
        """Return features of shape ``(N, width)`` for records of shape ``(N, columns)``."""
        return one_hot(self.columns, torch.where(self._categorical, records, (records - self.mean) / self.std))

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation of every encoded column, shape ``(width,)``: 0 and 1 for those of a category."""
        sizes = torch.tensor([len(column.values) or 1 for column in self.columns], device=self.mean.device)
        mean, std = self.mean.masked_fill(self._categorical, 0.0), self.std.masked_fill(self._categorical, 1.0)
        return mean.repeat_interleave(sizes), std.repeat_interleave(sizes)

    @property
    def _categorical(self) -> Tensor:
        return torch.tensor([column.categorical for column in self.columns], device=self.mean.device)


class ScaledRecords(Entry):
    """Turns raw records into one-hot categories and numbers, all of which are scaled: minus a mean, over a deviation.

    Args:
        columns: The schema.
        mean: What is subtracted from every encoded column, shape ``(width,)``, or ``(1,)`` for all.
        std: What it is then divided by, likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, columns: Sequence[Column], mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.columns, self.width = tuple(columns), encoded_width(columns)
        self.register_buffer("mean", mean.float().expand(self.width).clone())
        self.register_buffer("std", std.float().expand(self.width).clone())

    def canonical(self, records: Tensor) -> Tensor:
        """Return features of shape ``(N, width)`` for records of shape ``(N, columns)``."""
        return (one_hot(self.columns, records, self.mean.dtype) - self.mean) / self.std

    def scaling(self) -> tuple[Tensor, Tensor]:
        """Return what of every encoded column is subtracted, and by what it is divided, shape ``(width,)``."""
        return self.mean, self.std
