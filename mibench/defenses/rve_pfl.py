r"""RVE-PFL: a variational encoder that stays with the client (Issa et al., RVE-PFL, IEEE TIFS 2024).

In front of the classifier stands a random code of the image's own shape, made by an encoder (two 3x3 convolutions of
32 and 64 channels, one hidden layer, dropout) that every client has for itself:

.. math:: (\mu, \log \sigma^2) = e_k(x), \quad z = \mu + \sigma \epsilon, \quad \epsilon \sim \mathcal N(0, I), \quad
    \mathrm{logits} = f(z).

A client trains both parts. The classifier :math:`f` is averaged over the clients as ever; the encoder :math:`e_k` is
initialised by the client, goes on from round to round, and never leaves it. The server can match a message only
through an encoder that is not the client's.

The released code has no term against :math:`\sigma \to 0` (it stands there commented out); ``kl_weight`` is the weight
of

.. math:: \mathrm{mean} \sum_d \tfrac12 (\mu_d^2 + \sigma_d^2 - 1 - \ln \sigma_d^2),

0 as released. The mean :math:`\sigma` of the last batch is reported.

What it does not protect from: the classifier's messages tell the labels as ever, and the attacker who knows of the
defense solves them for the codes :math:`z` in the encoder's place; of the image they hold what the classifier needs.
In a setting without clients nothing stays with anybody: only access ``gradients`` is affected. There is no neutral
value. What it costs is patience: a fresh code is mostly noise, under which one gradient step a round learns nothing for
long, and several local steps (``setting.local_epochs``) soon do (the test has the figures).

Official code: https://github.com/UNSW-Canberra-2023/RVE-PFL (it has no licence; only its description was read).
Deviations: the classifier is the cell's target, whose input the code takes the place of, rather than the authors'
(two convolutions of 32 and 64 channels and a layer of 256 units); the clients' optimiser and the numbers of clients,
rounds and local epochs (150, 100 and 10 with Adam at 1e-3) are the setting's, which takes plain gradient steps; a model
in evaluation mode answers with :math:`z = \mu`, so that answers can be repeated, where the code draws always.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import cast

import torch
from torch import Tensor, nn

from mibench.defenses.base import Batch, Classifier, Defense, DefenseCard, DefenseContext, cross_entropy
from mibench.errors import UserError
from mibench.nn.bottleneck import divergence
from mibench.options import Count, Decay, NonNegative

#: Channels of the encoder's convolutions.
CHANNELS = (32, 64)


class RvePfl(Defense):
    """A variational encoder in front of the target, one to each client and never sent."""

    card = DefenseCard(
        name="rve_pfl",
        title="RVE-PFL",
        modalities=("image",),
        year=2024,
        code="https://github.com/UNSW-Canberra-2023/RVE-PFL",
        fidelity="reconstruction",
        hooks=("architecture", "training", "protocol"),
        affects=("gradients",),
        strength="kl_weight",
        stronger="higher",
        levels=(0.0, 1e-4, 1e-3, 1e-2),
    )

    kl_weight: NonNegative = 0.0
    """Weight of the code's divergence from the standard normal, in nats."""
    hidden: Count = 512
    """Units of the layer before the code."""
    dropout: Decay = 0.25
    """Share of them that training leaves out."""
    _deviation: Tensor | None = field(init=False, default=None)

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with an encoder before its first layer.

        Raises:
            UserError: If the images are too small for two convolutions.
        """
        shape = context.spec.shape
        if min(shape[1:]) < 5:
            raise UserError("defense=rve_pfl needs images of at least 5 pixels a side; choose another dataset.size.")
        encoder = VariationalEncoder(cast(tuple[int, int, int], shape), self.hidden, self.dropout)
        model.normalise = Encoded(encoder, model.normalise)
        return model

    def personal(self, name: str) -> bool:
        """Whether the parameter is the encoder's."""
        return "personal" in name.split(".")

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy at one draw of the code, plus the weighted divergence."""
        encoder = next(part for part in batch.model.modules() if isinstance(part, VariationalEncoder))
        codes: list[Tensor] = []
        handle = encoder.code.register_forward_hook(lambda _module, _given, out: codes.append(out))
        mode = encoder.training
        encoder.train()  # a client trains in evaluation mode, but for its batch norm
        loss = cross_entropy(batch)
        encoder.train(mode)
        handle.remove()
        mean, deviation = encoder.parted(codes[-1])
        self._deviation = deviation.detach().mean()
        return loss + self.kl_weight * divergence(mean, deviation).mean() if self.kl_weight else loss

    def facts(self) -> dict[str, float | str]:
        """Return the mean deviation of the codes of the last batch that was trained on."""
        return {} if self._deviation is None else {"code_deviation": float(self._deviation)}


class VariationalEncoder(nn.Module):
    """A random code of an image's own shape: drawn in training mode, its mean in evaluation mode.

    Args:
        shape: Image shape ``(C, H, W)``.
        hidden: Units of the layer before the code.
        dropout: Share of them that training leaves out.
    """

    def __init__(self, shape: tuple[int, int, int], hidden: int, dropout: float) -> None:
        super().__init__()
        self.shape = shape
        channels, height, width = shape
        first, second = CHANNELS
        self.trunk = nn.Sequential(
            nn.Conv2d(channels, first, 3),
            nn.ReLU(),
            nn.Conv2d(first, second, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(second * (height - 4) * (width - 4), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.code = nn.Linear(hidden, 2 * math.prod(shape))

    @staticmethod
    def parted(code: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation ``(N, D)`` of what :attr:`code` gives."""
        mean, log_variance = code.chunk(2, 1)
        return mean, (log_variance / 2).exp()

    def forward(self, x: Tensor) -> Tensor:
        """Return codes ``(N, C, H, W)`` for images of that shape."""
        mean, deviation = self.parted(self.code(self.trunk(x)))
        code = mean + deviation * torch.randn_like(deviation) if self.training else mean
        return code.reshape(-1, *self.shape)


class Encoded(nn.Module):
    """A model's first module behind the client's encoder.

    Args:
        encoder: The encoder.
        inner: The module.
    """

    def __init__(self, encoder: VariationalEncoder, inner: nn.Module) -> None:
        super().__init__()
        self.personal = encoder
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module makes of a code of ``x``."""
        result: Tensor = self.inner(self.personal(x))
        return result
