"""Momentum descent inside a box."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


def nesterov_in_box(
    z: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float, bound: float
) -> tuple[Tensor, Tensor]:
    """Return latents and velocity after one Nesterov step, the latents clipped to ``[-bound, bound]``.

    ``v' = m v - lr g`` and ``z' = clip(z - m v + (1 + m) v')`` (Zhang et al., CVPR 2020, the authors' code).
    """
    ahead = momentum * velocity - lr * gradient
    return (z - momentum * velocity + (1 + momentum) * ahead).clamp(-bound, bound), ahead


def nesterov_descent(
    z: Tensor,
    objective: Callable[[Tensor], Tensor],
    steps: Iterable[int],
    *,
    lr: float,
    momentum: float,
    bound: float,
    batch: int = 1,
    after: Callable[[Tensor], None] | None = None,
) -> Tensor:
    """Return latents after steps of :func:`nesterov_in_box`; the gradient of a sample does not depend on the others.

    Args:
        z: Where to start, shape ``(N, latent_dim)``; it is not clipped before the first step.
        objective: Returns the objective of every sample, shape ``(N,)``.
        steps: An attack's own ``self.steps(n)``.
        lr: Step size.
        momentum: Nesterov momentum.
        bound: Half-width of the box.
        batch: What the gradients are divided by, for authors who step along the mean objective of so many samples.
        after: Called after every step with the latents.
    """
    velocity = torch.zeros_like(z)
    for _ in steps:
        z = z.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(objective(z).sum() / batch, z)
        z, velocity = nesterov_in_box(z.detach(), velocity, gradient, lr, momentum, bound)
        if after is not None:
            after(z)
    return z
