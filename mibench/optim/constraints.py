"""Constraints on what an attack optimises: each returns the nearest values that satisfy it."""

from __future__ import annotations

import torch
from torch import Tensor


def l1_ball(values: Tensor, centre: Tensor, radius: float) -> Tensor:
    r"""Return ``values`` projected onto the l1 ball around ``centre``, sample by sample.

    The exact euclidean projection of :math:`v` = values - centre (Duchi et al., ICML 2008): with :math:`|v|` sorted
    descending as :math:`\mu`, :math:`\rho = \max\{j : \mu_j > (\sum_{i \le j} \mu_i - r) / j\}` and
    :math:`\theta = (\sum_{i \le \rho} \mu_i - r) / \rho`, every entry is shrunk towards zero by :math:`\theta`.

    Args:
        values: Shape ``(N, ...)``.
        centre: What the ball lies around, of the same shape.
        radius: Its radius, at least 0, in the sum of absolute deviations of one sample.
    """
    away = (values - centre).flatten(1)
    sizes = away.abs()
    sums = sizes.sort(1, descending=True).values.cumsum(1)
    ranks = torch.arange(1, away.shape[1] + 1, device=away.device)
    thetas = (sums - radius) / ranks
    theta = thetas.amax(1, keepdim=True).clamp_min(0)  # thetas rise up to rho and fall behind it
    shrunk = away.sign() * (sizes - theta).clamp_min(0)
    return centre + torch.where(sums[:, -1:] <= radius, away, shrunk).reshape(values.shape)


def box(values: Tensor, low: Tensor | float, high: Tensor | float) -> Tensor:
    """Return ``values`` clipped to ``[low, high]`` on both sides; the bounds broadcast."""
    return torch.maximum(torch.minimum(values, torch.as_tensor(high).to(values)), torch.as_tensor(low).to(values))


def sphere(values: Tensor, like: Tensor) -> Tensor:
    """Return vectors ``(..., D)`` brought to the lengths of those in ``like``, their directions kept."""
    wanted: Tensor = like.norm(dim=-1, keepdim=True)
    actual: Tensor = values.norm(dim=-1, keepdim=True)
    return values * (wanted / actual.clamp_min(1e-9))
