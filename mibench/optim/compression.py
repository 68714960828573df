"""Compression of gradients: what is left of them where only some of their entries are sent."""

from __future__ import annotations

import math

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
