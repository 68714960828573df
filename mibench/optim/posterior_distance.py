"""Distances of posteriors, by which linked nodes are told from others."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return one minus the cosines, NaN where a vector is zero."""
    return 1 - cosine_similarity(a, b, eps=0.0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return quotients, 0 where both are 0."""
    return torch.where(below > 0, above / below.clamp_min(1e-300), 0.0)


#: The distances of posteriors ``(P, classes)``, row by row.
DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": _cosine,
    "euclidean": lambda a, b: (a - b).square().sum(1).sqrt(),
    "correlation": lambda a, b: _cosine(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)),
    "chebyshev": lambda a, b: (a - b).abs().amax(1),
    "braycurtis": lambda a, b: _ratio((a - b).abs().sum(1), (a + b).abs().sum(1)),
    "canberra": lambda a, b: _ratio((a - b).abs(), a.abs() + b.abs()).sum(1),
    "cityblock": lambda a, b: (a - b).abs().sum(1),
    "sqeuclidean": lambda a, b: (a - b).square().sum(1),
}


def link_scores(posteriors: Tensor, place: Tensor, metric: str) -> Tensor:
    """Return minus the distance of the posteriors of every pair, in single precision, shape ``(P,)``.

    A distance that is not defined (the correlation with a constant posterior, the cosine with zeros) counts as 0.

    Args:
        posteriors: Of nodes, shape ``(n, classes)``, in double precision.
        place: Which of them each end of a pair is, shape ``(P, 2)``.
        metric: A name of :data:`DISTANCES`.
    """
    left, right = posteriors[place.to(posteriors.device)].unbind(1)
    distance = DISTANCES[metric](left, right).nan_to_num(0.0, 0.0, 0.0).clamp_min(0)  # rounding goes below
    return -distance.cpu().float()
