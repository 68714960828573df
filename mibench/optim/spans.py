r"""Which vectors lie in the span of a gradient's rows: rank, basis and distance, computed in float64.

The gradient of a linear map's weight is :math:`\sum_t \delta_t a_t^T` over its inputs :math:`a_t`, so that its rows
span what entered, as long as there are fewer inputs than the map is wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

#: Rows that are tested at once; so many fit into a processor's cache.
CHUNK = 2048

#: The distance below which a vector that was tested in float32 is tested again, at the least.
COARSE = 0.02


def numerical_rank(gradient: Tensor, tolerance: float) -> int:
    """Return how many singular values of a matrix exceed the largest one's share ``tolerance``.

    >>> numerical_rank(torch.diag(torch.tensor([1.0, 0.1, 1e-9])), 1e-6)
    2
    """
    values = torch.linalg.svdvals(gradient.double())
    return int((values > tolerance * values[0]).sum())


@dataclass(frozen=True)
class Span:
    """The span of the first right singular vectors of a matrix.

    Attributes:
        basis: Orthonormal columns in float64, shape ``(width, rank)``.
    """

    basis: Tensor

    @classmethod
    def of(cls, gradient: Tensor, rank: int) -> Span:
        """Return the span of a matrix ``(rows, width)`` at a rank, by its exact singular value decomposition."""
        right = torch.linalg.svd(gradient.double(), full_matrices=False).Vh
        return cls(right[:rank].T.contiguous())

    @cached_property
    def _coarse(self) -> Tensor:
        return self.basis.float()

    def distance(self, vectors: Tensor) -> Tensor:
        """Return how far vectors ``(..., width)``, scaled to length 1, are from the span, shape ``(...)``.

        It is between 0 and 1, and NaN for a vector of zeros. Vectors in float32 are compared in float32.
        """
        basis = self._coarse if vectors.dtype == torch.float32 else self.basis
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        result: Tensor = (unit - unit @ basis @ basis.T).norm(dim=-1)
        return result

    def close(self, count: int, vectors: Callable[[Tensor], Tensor], exact: Callable[[Tensor], Tensor],
              bound: float) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Return which of ``count`` vectors are closer than ``bound``, closest first, and their distances in float64.

        All are tested in float32 by what the span holds of their squared length, and those within :data:`COARSE` again
        in float64.

        Args:
            count: Number of vectors.
            vectors: Returns the vectors of given numbers ``(n,)``, shape ``(n, width)``.
            exact: Likewise, in float64.
            bound: The largest distance.
        """
        found = []
        for numbers in torch.arange(count, device=self.basis.device).split(CHUNK):
            given = vectors(numbers).float()
            outside = given.square().sum(1) - (given @ self._coarse).square().sum(1)
            found.append(numbers[outside < max(COARSE, 2 * bound) ** 2 * given.square().sum(1)])
        near = torch.cat(found)
        distances = self.distance(exact(near).double())
        order = distances.argsort()
        order = order[distances[order] < bound]
        return near[order], distances[order]
