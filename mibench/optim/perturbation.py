"""Perturbation of inputs against a classifier, by projected gradient descent within a ball per entry."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from mibench.model import Classifier

#: Inputs that are moved together, which bounds the memory.
CHUNK = 256


def towards(
    victim: Classifier,
    inputs: Tensor,
    labels: Tensor,
    epsilon: float,
    steps: int,
    low: float = 0.0,
    high: float = 1.0,
) -> Tensor:
    """Return inputs ``(N, ...)`` that the victim takes for ``labels``, as near the given ones as ``epsilon`` says.

    Args:
        victim: The classifier, in evaluation mode.
        inputs: Shape ``(N, ...)``, between ``low`` and ``high``.
        labels: Class ids ``(N,)``.
        epsilon: How far an entry may move, as a share of the range.
        steps: Steps of the descent on the cross-entropy, each of ``2.5 * epsilon / steps`` along its sign.
        low: The least value of an entry.
        high: The largest one.
    """
    radius = epsilon * (high - low)
    size, moved = 2.5 * radius / steps, []
    for x, y in zip(inputs.split(CHUNK), labels.to(victim.device).split(CHUNK), strict=True):
        x = x.to(victim.device)
        least, most = (x - radius).clamp(min=low), (x + radius).clamp(max=high)
        for _ in range(steps):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(victim(x), y, reduction="sum"), x)
            x = torch.clamp(x - size * slope.sign(), least, most)
        moved.append(x.detach().cpu())
    return torch.cat(moved)
