"""Compression of gradients: what is left of them where only some of their entries are sent."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor


def largest(values: Tensor, keep: float) -> Tensor:
    """Return ``values`` with zeros in the place of all but the ``ceil(n * keep)`` largest magnitudes of every row.

    Args:
        values: Shape ``(..., n)``; a row is what lies along the last axis.
        keep: Share of a row that is kept, above 0 and at most 1.
    """
    count = math.ceil(values.shape[-1] * keep - 1e-9)  # 100 * 0.07 is a little more than 7
    index = values.abs().topk(max(1, count), dim=-1).indices
    return torch.zeros_like(values).scatter(-1, index, values.gather(-1, index))


def by_group(
    update: Mapping[str, Tensor], groups: Iterable[Sequence[str]], compress: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return an update (parameter name -> tensor) whose tensors are compressed group by group.

    Args:
        update: The update.
        groups: The names of the tensors that are compressed together; every name stands in one group.
        compress: What is done to the entries of a group, shape ``(n,)``.
    """
    sent: dict[str, Tensor] = {}
    for names in groups:
        entries = compress(torch.cat([update[name].flatten() for name in names]))
        sent |= zip(names, entries.split([update[name].numel() for name in names]), strict=True)
    return {name: sent[name].reshape(value.shape) for name, value in update.items()}
