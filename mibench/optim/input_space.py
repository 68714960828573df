"""The spaces in which inputs are searched: the model's own inputs, or what a generator makes images of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from mibench.access import GradientsView
from mibench.data import Column
from mibench.entry import Normalise
from mibench.errors import UserError
from mibench.nn.records import one_hot, places


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
        known: Tokens whose places are known, -1 for all others, shape ``(n, batch, tokens)``; none where it is None.
    """

    table: Tensor
    allowed: Tensor | None = None
    known: Tensor | None = None

    @classmethod
    def of(cls, view: GradientsView, allowed: Tensor | None = None) -> Embeddings:
        """Return the embedding space of the view's model.

        Raises:
            UserError: If the model has no table of embeddings.
        """
        return cls(_table(view).detach(), allowed)

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
        read = cosines.argmax(-1)
        return read if self.known is None else torch.where(self.known >= 0, self.known, read)


def present_tokens(view: GradientsView) -> Tensor:
    """Return which tokens' embeddings have a gradient in every message, shape ``(messages, vocabulary)``.

    Raises:
        UserError: If the model has no table of embeddings.
    """
    table = _table(view)
    name = next(name for name, value in view.model.named_parameters() if value is table)
    return torch.stack([message[name].abs().sum(1) > 0 for message in view.messages])


def _table(view: GradientsView) -> Tensor:
    """Return the embedding of every token, a parameter of the view's model, shape ``(vocabulary, width)``."""
    table = getattr(view.model.entry, "table", None)
    if not isinstance(table, Tensor):
        raise UserError("This attack searches token embeddings, and the target has none; set target=transformer.")
    return table


#: Standard deviations from the mean within which a number is searched where nobody published its bounds.
REACH = 4.0


@dataclass(frozen=True)
class Relaxed:
    """The space of soft records, which enter the model behind its encoder (:meth:`GradientsView.relaxed`).

    A point holds a number for every encoded column, standardised as the model's encoder does it. On the way to the
    model categories pass a softmax of temperature 1 over the columns of their group, taken of what they were before
    they were standardised; numbers pass a sigmoid into their bounds (Vero et al., TabLeak, ICML 2023). A category of a
    single encoded column passes as it is. Bounds are public: the schema's, or, where it has none, four standard
    deviations around the mean of the model's own encoder, a parameter that every client and the server know.

    Attributes:
        columns: The schema.
        mean: What the encoder subtracts, shape ``(width,)``.
        std: What it then divides by, likewise.
        low: The least standardised value of a number, likewise; of no meaning for categories.
        high: The largest one.
        softmax: Whether categories pass the softmax.
        sigmoid: Whether numbers pass the sigmoid.
    """

    columns: tuple[Column, ...]
    mean: Tensor
    std: Tensor
    low: Tensor
    high: Tensor
    softmax: bool = True
    sigmoid: bool = True

    @classmethod
    def of(cls, view: GradientsView, softmax: bool = True, sigmoid: bool = True) -> Relaxed:
        """Return the space of soft records of the view's model.

        Raises:
            UserError: If the model has no encoder of records.
        """
        entry = view.model.entry
        scaling = None if entry is None else entry.scaling()
        if scaling is None or not view.spec.columns:
            raise UserError("This attack searches soft records, and the target encodes none; set target=mlp.")
        mean, std = (value.detach() for value in scaling)
        low, high = torch.full_like(mean, -REACH), torch.full_like(mean, REACH)
        for column, place in places(view.spec.columns):
            if column.low is not None:
                low[place] = (column.low - mean[place]) / std[place]
            if column.high is not None:
                high[place] = (column.high - mean[place]) / std[place]
        return cls(view.spec.columns, mean, std, low, high, softmax, sigmoid)

    @property
    def width(self) -> int:
        """The number of encoded columns."""
        return len(self.mean)

    def to_inputs(self, u: Tensor) -> Tensor:
        """Return soft one-hots and numbers, standardised, shape ``(n, batch, width)``, for points of that shape."""
        plain, parts = u * self.std + self.mean, []
        for column, place in self.places():
            own = u[..., place]
            if column.categorical and self.softmax and len(column.values) > 1:
                own = (plain[..., place].softmax(-1) - self.mean[place]) / self.std[place]
            elif not column.categorical and self.sigmoid:
                own = self.low[place] + (self.high[place] - self.low[place]) * own.sigmoid()
            parts.append(own)
        return torch.cat(parts, -1)

    def places(self) -> Iterator[tuple[Column, slice]]:
        """Yield every column with its place among the encoded ones."""
        return places(self.columns)

    def project(self, u: Tensor) -> Tensor:
        """Return the points as they are: any of them stands for a record."""
        return u

    def decode(self, u: Tensor) -> Tensor:
        """Return the records of points, shape ``(n, batch, columns)``: category codes, and numbers in their units."""
        return self.read(self.to_inputs(u))

    def read(self, inputs: Tensor) -> Tensor:
        """Return the records of soft ones ``(..., width)``: the strongest category, and numbers within their bounds."""
        inside = torch.maximum(torch.minimum(inputs, self.high), self.low) * self.std + self.mean
        plain, values = inputs * self.std + self.mean, []
        for column, place in self.places():
            if len(column.values) > 1:
                values.append(plain[..., place].argmax(-1).to(inputs.dtype))
            else:  # of a single category there is nothing to choose
                values.append(inside[..., place.start] * (not column.categorical))
        return torch.stack(values, -1)

    def encode(self, records: Tensor) -> Tensor:
        """Return what :meth:`to_inputs` would give for records ``(..., columns)`` of which one is sure."""
        return (one_hot(self.columns, records, self.mean.dtype) - self.mean) / self.std

    def entropy(self, inputs: Tensor) -> Tensor:
        """Return how undecided the categories of soft records are, shape ``(..., columns)``.

        It is the entropy of a group's weights, made to add up to 1, over that of a uniform guess: from 0 (sure) to 1.
        NaN for numbers, of which a soft record has one value each.
        """
        plain, found = inputs * self.std + self.mean, []
        for column, place in self.places():
            if len(column.values) < 2:
                found.append(torch.full_like(inputs[..., 0], 0.0 if column.categorical else torch.nan))
                continue
            share = plain[..., place].clamp_min(0)
            share = share / share.sum(-1, keepdim=True).clamp_min(torch.finfo(share.dtype).tiny)
            found.append(torch.special.entr(share).sum(-1) / torch.tensor(len(column.values)).log().to(share))
        return torch.stack(found, -1)
