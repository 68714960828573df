"""Training across a cut, where a server that an attack plants answers the clients' features."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from mibench.access import Server
from mibench.data import Examples
from mibench.model import Classifier
from mibench.training import Batch, Training, cross_entropy


@dataclass
class TrainingAcross(Training):
    """A training in which the clients' part is sent the gradients that a server returns.

    With the honest server it is the training of the whole model. The server's own part learns from the loss as ever.

    Attributes:
        server: Who answers the features of the model's last client stage.
    """

    server: Server = field(default_factory=Server)
    _labels: Tensor | None = field(default=None, init=False, repr=False)

    def batches(self) -> Iterator[Examples]:
        """Yield every batch, and keep its labels for the server."""
        for batch in super().batches():
            self._labels = batch.y
            yield batch

    def run(
        self, loss: Callable[[Batch], Tensor] = cross_entropy, rates: Mapping[nn.Module, float] | None = None
    ) -> Classifier:
        """Train the model with ``loss``, with the server's gradients below the cut."""

        def answered(_module: nn.Module, _inputs: tuple[Any, ...], features: Tensor) -> Tensor:
            assert self._labels is not None
            result: Tensor = _Answered.apply(features, self._labels, self.server)
            return result

        handle = self.model.stages[self.model.cut or 0].register_forward_hook(answered)
        try:
            return super().run(loss, rates)
        finally:
            handle.remove()


class _Answered(torch.autograd.Function):
    """The identity, whose gradient is what the server returns."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, labels: Tensor, server: Server) -> Tensor:
        ctx.save_for_backward(features, labels)
        ctx.server = server
        return features.view_as(features)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        features, labels = ctx.saved_tensors
        return ctx.server.returns(features.detach(), labels, gradient), None, None
