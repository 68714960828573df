"""Precision, recall, density and coverage of one set of features against another, from nearest-neighbour balls."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Overlap:
    """How far two sets of features lie over each other; each is 1 for equal sets, and density may exceed it.

    Attributes:
        precision: Share of samples inside the ball of any real one.
        recall: Share of real ones inside the ball of any sample.
        density: In how many real balls a sample lies on average, over ``neighbours``.
        coverage: Share of real ones with a sample inside their own ball.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def distances(a: Tensor, b: Tensor) -> Tensor:
    """Return Euclidean distances ``(N, M)`` between rows of ``a`` and ``b``, exact where two rows are equal."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def overlap(real: Tensor, samples: Tensor, neighbours: int) -> Overlap:
    """Return the four shares.

    The ball around a point reaches, without its surface, to the ``neighbours``-th nearest other point of its own set.

    Args:
        real: Features ``(N, F)`` with ``N > neighbours``.
        samples: Features ``(M, F)`` with ``M > neighbours``.
        neighbours: The number of neighbours k.
    """
    between = distances(real, samples)
    in_real_ball = between < _radii(real, neighbours)[:, None]
    in_sample_ball = between < _radii(samples, neighbours)[None]
    return Overlap(
        precision=float(in_real_ball.any(0).double().mean()),
        recall=float(in_sample_ball.any(1).double().mean()),
        density=float(in_real_ball.sum(0).double().mean()) / neighbours,
        coverage=float(in_real_ball.any(1).double().mean()),
    )


def _radii(points: Tensor, neighbours: int) -> Tensor:
    """Return each point's distance to its ``neighbours``-th nearest other point."""
    return distances(points, points).kthvalue(neighbours + 1, 1).values  # the nearest is the point itself
