"""Features of a classifier, computed in batches where the classifier is."""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.model import Classifier


@torch.no_grad()
def penultimate(model: Classifier, x: Tensor, batch_size: int = 512) -> Tensor:
    """Return the penultimate features ``(N, F)`` of inputs, on the CPU, in double precision."""
    return torch.cat([model.features(part.to(model.device)).cpu().double() for part in x.split(batch_size)])
