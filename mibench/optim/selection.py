"""Keeping and choosing results by the attacker's own loss, without leaving the device."""

from __future__ import annotations

from collections.abc import Sequence

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


class Best:
    """The variables with the lowest objective met so far, over steps and restarts; never leaves the device.

    Attributes:
        values: Copies of the variables; empty until something was offered.
        loss: Their objective, a scalar; infinite until a finite one was met.
    """

    def __init__(self) -> None:
        self.values: list[Tensor] = []
        self.loss = torch.tensor(torch.inf)

    def offer(self, variables: Sequence[Tensor], loss: Tensor) -> None:
        """Takes ``variables`` where their ``loss`` is lower than the best; a NaN never is."""
        if not self.values:
            self.values = [variable.detach().clone() for variable in variables]
            self.loss = self.loss.to(loss.device)
        better = loss.detach() < self.loss
        pairs = zip(variables, self.values, strict=True)
        self.values = [torch.where(better, variable.detach(), kept) for variable, kept in pairs]
        self.loss = torch.where(better, loss.detach(), self.loss)
