"""Keeping and choosing results by the attacker's own loss, without leaving the device."""

from __future__ import annotations

import torch
from torch import Tensor


def take_best(best: Tensor, best_loss: Tensor, values: Tensor, loss: Tensor) -> tuple[Tensor, Tensor]:
    """Returns per sample the values with the lower loss, without leaving the device.

    Args:
        best: Best values so far, shape ``(N, ...)``.
        best_loss: Their losses, shape ``(N,)``.
        values: New values.
        loss: Their losses.
    """
    better = loss < best_loss
    mask = better.reshape(-1, *[1] * (values.dim() - 1))
    return torch.where(mask, values, best), torch.where(better, loss, best_loss)
