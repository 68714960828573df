r"""Inverse network: a decoder of what split clients send (He et al., ACSAC 2019).

Z. He, T. Zhang and R. B. Lee, Model Inversion Attacks Against Collaborative Inference; the attacker against whom
Titcombe et al. (2021) and ResSFL (Li et al., CVPR 2022) measure defenses.

The attacker may run the client's part on inputs of its own, as any client may, and owns public images :math:`x_i`. It
collects what the client sends for them, with the client's defense :math:`d` on the way, and trains a decoder

.. math:: \min_h \; \frac{1}{n} \sum_i \| h(d(f_c(x_i))) - x_i \|^2 \quad \text{or} \quad 1 - \mathrm{SSIM},

which is then applied to what another client sent. Neither weights nor architecture of :math:`f_c` are needed. The
attack adapts to any defense by itself: one that draws anew does so for every query, so that the decoder learns the mean
image of noisy features; where clients send the same features several times, it averages its own queries as often. An
attacker who trained on undefended features would be weaker (a test shows by how much), so a defense is measured by
this one.

Official code: https://github.com/zlijingtao/ResSFL (decoders, Adam 1e-3, batches of 32, 50 epochs); He et al.'s
original, https://github.com/zechenghe/Inverse_Collaborative_Inference, was not read. Deviations: features are
standardised by their own mean and deviation before the decoder, because a defense may only have shrunk them; vectors
go through two linear layers to a map (:mod:`mibench.nn.feature_decoder`); the classes of public images are never
private ones.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from mibench.access import FeaturesView
from mibench.attacks.base import Attack, AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.nn.adversarial import step_along
from mibench.nn.feature_decoder import Body, FeatureDecoder, dissimilarity
from mibench.options import Count, Positive

#: Images per query.
AT_ONCE = 256


class SplitDecoder(Attack[FeaturesView, InstanceGoal]):
    """A decoder trained on what the client sends for public images."""

    card = AttackCard(
        name="split_decoder",
        title="Inverse network",
        modalities=("image",),
        year=2019,
        code="https://github.com/zlijingtao/ResSFL",
        fidelity="official",
        family="learned inversion",
        task="instance",
        access=("features",),
        needs=("public",),
        encoder="query",
    )
    length = ("epochs",)

    decoder: Body = "res_norm"
    """``custom``, ``conv_norm`` or ``res_norm``."""
    blocks: Count = 4
    """Blocks before the decoder's doublings."""
    channels: Count = 64
    """Channels of a block."""
    epochs: Count = 50
    """Passes over the public images."""
    lr: Positive = 1e-3
    """Adam's learning rate."""
    batch: Count = 32
    """Images of one training step."""
    loss: Literal["mse", "ssim"] = "mse"
    """``mse``, or ``ssim`` for 1 - SSIM."""
    aux_size: Count | None = None
    """Public images that are queried; null for all."""

    def networks(self, view: FeaturesView, knowledge: Knowledge) -> nn.ModuleDict:
        """Return the decoder."""
        shape = tuple(view.features.shape[1:])
        return nn.ModuleDict(
            {"decoder": FeatureDecoder(shape, view.spec.shape, self.decoder, self.blocks, self.channels)}
        )

    def prepare(self, networks: nn.ModuleDict, view: FeaturesView, knowledge: Knowledge) -> None:
        """Train the decoder on what the client sends for public images."""
        decoder = networks["decoder"]
        assert isinstance(decoder, FeatureDecoder)
        images = knowledge.public.x.to(view.device)
        draws = self.draws(view.device, "order")
        images = images[torch.randperm(len(images), generator=draws, device=view.device)[: self.aux_size]]
        features = torch.cat([self.sent(view, part) for part in images.split(AT_ONCE)])
        decoder.fit(features)
        parameters = list(decoder.train().parameters())
        adam = torch.optim.Adam(parameters, lr=self.lr)
        loss = mse_loss if self.loss == "mse" else dissimilarity
        size = min(self.batch, len(images))
        for _ in self.steps(self.epochs, "decoder"):
            order = torch.randperm(len(images), generator=draws, device=view.device)
            for rows in order[: len(order) // size * size].split(size):
                step_along(adam, loss(decoder(features[rows]), images[rows]), decoder)
        decoder.eval().requires_grad_(True)
        for parameter in parameters:
            parameter.grad = None

    def sent(self, view: FeaturesView, images: Tensor) -> Tensor:
        """Return the mean of what a client sends for images, queried as often as clients send, shape ``(N, ...)``."""
        return torch.stack([view.query(images) for _ in view.observed]).mean(0)

    def reconstruct(
        self, view: FeaturesView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return what the decoder makes of everything that was sent."""
        with torch.no_grad():
            images = torch.cat([networks["decoder"](part) for part in view.features.split(AT_ONCE)])
        return Reconstruction(images, goal.target.to(view.device))
