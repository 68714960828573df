"""Networks of one architecture that run side by side, each with weights of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class StackedNetworks:
    """Networks as a function of their weights, which are stacked.

    Args:
        networks: Networks of one architecture and without buffers, on one device.

    Attributes:
        weights: Every parameter of all networks, shape ``(networks, ...)``.
    """

    def __init__(self, networks: Sequence[nn.Module]) -> None:
        self.weights = [
            torch.stack(each).detach() for each in zip(*[one.parameters() for one in networks], strict=True)
        ]
        self._shape = networks[0]
        self._names = [name for name, _ in networks[0].named_parameters()]

    def __call__(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        """Return what each network makes of its own input.

        Args:
            weights: The weights of ``n`` of the networks, each of shape ``(n, ...)``.
            x: Their inputs, shape ``(n, batch, ...)``.

        Returns:
            Shape ``(n, batch, ...)``.
        """
        if len(x) == 1:  # plain autograd is faster there
            return self._one([weight[0] for weight in weights], x[0])[None]
        made: Tensor = torch.func.vmap(self._one)(list(weights), x)
        return made

    def _one(self, weights: Sequence[Tensor], x: Tensor) -> Tensor:
        made: Tensor = torch.func.functional_call(self._shape, dict(zip(self._names, weights, strict=True)), (x,))
        return made
