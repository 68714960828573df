"""The attacker whom a defense of split features trains against: a decoder that learns beside the model.

The two take steps in turn: the decoder learns from the features that the model of the moment sends, then the model's
loss holds the decoder still and asks how wrong it is. Features are standardised by their batch before they are decoded,
as the real attacker (``split_decoder``) standardises what it has collected: shrinking them all wins nothing.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mibench.nn.adversarial import step_along
from mibench.nn.bottleneck import client_shapes
from mibench.nn.feature_decoder import Body, FeatureDecoder, standardisation
from mibench.seeding import derive, seeded
from mibench.training import Training


class SimulatedAttacker:
    """A decoder of what the client's part of a model in training sends, and its optimiser.

    Args:
        training: The training about to happen, for shapes, device and seed; nothing is drawn from its generators.
        loss: The attacker's error: a scalar for decoded and true images ``(N, C, H, W)`` in [0, 1].
        lr: Adam's learning rate.
        body: ``custom``, ``conv_norm`` or ``res_norm``.
        blocks: Blocks before the decoder's doublings.
        channels: Channels of each.
    """

    def __init__(
        self,
        training: Training,
        loss: Callable[[Tensor, Tensor], Tensor],
        *,
        lr: float,
        body: Body,
        blocks: int,
        channels: int,
    ) -> None:
        image = tuple(training.data.x.shape[1:])
        features = client_shapes(training.model, image)[-1]
        with seeded(derive(training.seed, "simulated attacker")):
            decoder = FeatureDecoder(features, image, body, blocks, channels)
        self.decoder = decoder.to(training.device)
        self.loss = loss
        self.adam = torch.optim.Adam(self.decoder.parameters(), lr)

    def learn(self, features: Tensor, images: Tensor) -> None:
        """Take one step of the decoder; none of it reaches what made the features ``(N, ...)``."""
        self.decoder.train().requires_grad_(True)
        step_along(self.adam, self._error(features.detach(), images), self.decoder)

    def error(self, features: Tensor, images: Tensor) -> Tensor:
        """Return the error on features ``(N, ...)``, differentiable in them; the decoder stays as it is."""
        self.decoder.eval().requires_grad_(False)
        return self._error(features, images)

    def _error(self, features: Tensor, images: Tensor) -> Tensor:
        mean, scale = standardisation(features.float())
        return self.loss(self.decoder((features - mean) / scale).float(), images)
