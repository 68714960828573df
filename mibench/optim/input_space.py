"""The spaces in which inputs are searched: the model's own inputs, or what a generator makes images of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mibench.access import GradientsView
from mibench.model import Normalise


class SearchSpace(Protocol):
    """What is searched in place of images."""

    def images(self, u: Tensor, /) -> Tensor:
        """Return the images ``(n, batch, C, H, W)`` of points ``(n, batch, ...)``."""


@dataclass(frozen=True)
class Pixels:
    """The space of the model's own inputs: images in [0, 1] minus the mean, over the standard deviation, per channel.

    Attributes:
        mean: Shape ``(C, 1, 1)``, or ``()`` where the model takes images as they are.
        std: Likewise.
    """

    mean: Tensor
    std: Tensor

    @classmethod
    def of(cls, view: GradientsView) -> Pixels:
        """Return the input space of the view's model."""
        entry = view.model.entry
        if isinstance(entry, Normalise):
            return cls(entry.mean[0], entry.std[0])
        return cls(torch.zeros((), device=view.device), torch.ones((), device=view.device))

    def images(self, u: Tensor) -> Tensor:
        """Return the images of inputs ``(..., C, H, W)``."""
        return u * self.std + self.mean

    def inputs(self, images: Tensor) -> Tensor:
        """Return the inputs of images ``(..., C, H, W)``."""
        return (images - self.mean) / self.std

    def boxed(self, u: Tensor) -> Tensor:
        """Return inputs clamped to what images in [0, 1] can give."""
        return torch.maximum(torch.minimum(u, (1 - self.mean) / self.std), -self.mean / self.std)
