"""Records compared column by column, and the rows of two batches of them matched one to one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.data import Column


def right_columns(columns: Sequence[Column], made: Tensor, true: Tensor, margin: Tensor) -> Tensor:
    """Return which columns of records are right: the same category, or a number at most ``margin`` away.

    Args:
        columns: The schema.
        made: Records ``(..., columns)``.
        true: Records that can be broadcast against them.
        margin: The largest difference of every column, in its own units, shape ``(columns,)``.

    Returns:
        Booleans of the broadcast shape.
    """
    return torch.where(_categorical(columns, made), made == true, (made - true).abs() <= margin.to(made.device))


def unlike(columns: Sequence[Column], made: Tensor, true: Tensor, spread: Tensor) -> Tensor:
    """Return how unlike records are, from 0 to 1, the mean over columns.

    A category is like another (0) or not (1); a number is as unlike as the difference is large, in units of ``spread``
    (shape ``(columns,)``) and at the most 1, so that no single number outweighs a category.
    """
    apart = ((made - true).abs() / spread.to(made.device).clamp_min(1e-12)).clamp_max(1)
    return torch.where(_categorical(columns, made), (made != true).to(apart.dtype), apart).mean(-1)


def matched(costs: Tensor) -> Tensor:
    """Return for every row of ``costs`` ``(n, n)`` its own column, at the least total cost (Hungarian algorithm)."""
    from scipy.optimize import linear_sum_assignment

    _, places = linear_sum_assignment(costs.cpu().numpy())
    return torch.from_numpy(places).to(costs.device)


def _categorical(columns: Sequence[Column], like: Tensor) -> Tensor:
    return torch.tensor([column.categorical for column in columns], device=like.device)
