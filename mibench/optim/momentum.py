"""Momentum descent inside a box."""

from __future__ import annotations

from torch import Tensor


def nesterov_in_box(
    z: Tensor, velocity: Tensor, gradient: Tensor, lr: float, momentum: float, bound: float
) -> tuple[Tensor, Tensor]:
    """Returns latents and velocity after one Nesterov step, the latents clipped to ``[-bound, bound]``.

    ``v' = m v - lr g`` and ``z' = clip(z - m v + (1 + m) v')`` (Zhang et al., CVPR 2020, the authors' code).
    """
    ahead = momentum * velocity - lr * gradient
    return (z - momentum * velocity + (1 + momentum) * ahead).clamp(-bound, bound), ahead
