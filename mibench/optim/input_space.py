"""The spaces in which inputs are searched: the model's own inputs, or what a generator makes images of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mibench.access import GradientsView
from mibench.errors import UserError
from mibench.model import Normalise


class InputSpace(Protocol):
    """What is searched in place of inputs; attacks that differ in it alone differ in nothing else."""

    def to_inputs(self, u: Tensor, /) -> Tensor:
        """Return what the searched view takes, shape ``(n, batch, ...)``, for points ``(n, batch, ...)``."""

    def project(self, u: Tensor, /) -> Tensor:
        """Return the nearest points that stand for inputs."""

    def decode(self, u: Tensor, /) -> Tensor:
        """Return the inputs themselves, shape ``(n, batch, *spec.shape)``."""


@dataclass(frozen=True)
class Pixels:
    """The space of the model's own inputs: images minus the mean, over the standard deviation, per channel.

    Attributes:
        mean: Shape ``(C, 1, 1)``, or ``()`` where the model takes images as they are.
        std: Likewise.
        low: The least value of an image's entry.
        high: The largest one.
    """

    mean: Tensor
    std: Tensor
    low: float = 0.0
    high: float = 1.0

    @classmethod
    def of(cls, view: GradientsView) -> Pixels:
        """Return the input space of the view's model."""
        entry = view.model.entry
        if isinstance(entry, Normalise):
            return cls(entry.mean[0], entry.std[0], view.spec.low, view.spec.high)
        return cls(
            torch.zeros((), device=view.device), torch.ones((), device=view.device), view.spec.low, view.spec.high
        )

    def to_inputs(self, u: Tensor) -> Tensor:
        """Return the images of inputs ``(..., C, H, W)``."""
        return u * self.std + self.mean

    def inputs(self, images: Tensor) -> Tensor:
        """Return the inputs of images ``(..., C, H, W)``."""
        return (images - self.mean) / self.std

    def project(self, u: Tensor) -> Tensor:
        """Return inputs clamped to what images within their range can give."""
        return torch.maximum(torch.minimum(u, (self.high - self.mean) / self.std), (self.low - self.mean) / self.std)

    def decode(self, u: Tensor) -> Tensor:
        """Return the images of inputs, clamped to their range."""
        return self.to_inputs(u).clamp(self.low, self.high)


@dataclass(frozen=True)
class Embeddings:
    """The space of token embeddings, which enter the model behind its look-up (:meth:`GradientsView.relaxed`).

    Attributes:
        table: The embedding of every token, shape ``(vocabulary, width)``.
        allowed: Which tokens may be read off of every point, shape ``(n, vocabulary)``; all where it is None.
    """

    table: Tensor
    allowed: Tensor | None = None

    @classmethod
    def of(cls, view: GradientsView, allowed: Tensor | None = None) -> Embeddings:
        """Return the embedding space of the view's model.

        Raises:
            UserError: If the model has no table of embeddings.
        """
        table = getattr(view.model.entry, "table", None)
        if not isinstance(table, Tensor):
            raise UserError("This attack searches token embeddings, and the target has none; set target=transformer.")
        return cls(table.detach(), allowed)

    def to_inputs(self, u: Tensor) -> Tensor:
        """Return the embeddings ``(n, batch, tokens, width)`` themselves."""
        return u

    def project(self, u: Tensor) -> Tensor:
        """Return the embeddings as they are."""
        return u

    def decode(self, u: Tensor) -> Tensor:
        """Return the tokens whose embeddings have the largest cosine, shape ``(n, batch, tokens)``."""
        cosines = torch.nn.functional.normalize(u, dim=-1) @ torch.nn.functional.normalize(self.table, dim=1).T
        if self.allowed is not None:
            cosines = cosines.masked_fill(~self.allowed[:, None, None], -torch.inf)
        return cosines.argmax(-1)
