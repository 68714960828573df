r"""MID: mutual information regularisation (Wang et al., Improving Robustness to Model Inversion Attacks, AAAI 2021).

The prediction is to tell little of the input. A random code :math:`z` of half as many dimensions stands between the
features :math:`\phi(x)` and the head,

.. math:: (\mu, s) = W \phi(x) + b, \quad \sigma = \mathrm{softplus}(s - 5), \quad z = \mu + \sigma \epsilon, \quad
    \epsilon \sim \mathcal N(0, I), \quad \mathrm{logits} = \mathrm{head}(z),

and the mutual information of code and input is bounded from above by the code's divergence from the standard normal,
in nats:

.. math:: L = \mathrm{CE} + \beta \, \mathrm{mean} \sum_k \tfrac12 (\mu_k^2 + \sigma_k^2 - 1 - 2 \ln \sigma_k).

The code is drawn in serving too: asked twice, the service answers twice. Served codes come from a generator of the
model's own, so that a victim answers a sequence of queries alike whether it is fresh or out of the store.

What it does not protect from: the attacker who knows of it averages answers over repeated queries, and the one who
holds the weights reads :math:`\mu` off (:meth:`VariationalHead.code`); a large :math:`\beta` ruins the accuracy before
it stops either. A client's gradient is that of this loss at one draw, as in PRECODE, whose docstring says what that
leaves open. There is no neutral value: the baseline ``beta=0`` is the bottleneck alone.

Official code: https://github.com/Jiachen-T-Wang/mi-defense (read for facts, written anew: it has no licence).
Deviations: the recipe is the target's own; :math:`\sigma` has a floor of 1e-7, below which its logarithm has no
gradient. The paper's variants for linear regression and trees are not here.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mibench.defenses.base import Batch, Classifier, Defense, DefenseCard, DefenseContext
from mibench.nn.bottleneck import divergence, linear_head, replace_module
from mibench.options import Count, NonNegative
from mibench.seeding import derive, generator

#: What is taken off before the softplus: a fresh code has a deviation of 0.0067.
SHIFT = 5.0

#: Least deviation of a code.
FLOOR = 1e-7


class Mid(Defense):
    """A variational bottleneck under a penalty on what it tells of the input."""

    card = DefenseCard(
        name="mid",
        title="MID",
        modalities=("image", "tabular"),
        year=2021,
        code="https://github.com/Jiachen-T-Wang/mi-defense",
        fidelity="official",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="beta",
        stronger="higher",
        levels=(3e-4, 3e-3, 3e-2, 0.1),
        baselines=(("beta", 0.0),),
        adaptive=(
            "attack=inversion_network knowledge.repeats=8",
            "setting=federated attack=inverting_gradients knowledge.defense_loss=true",
        ),
    )

    beta: NonNegative = 3e-3
    """Weight of the code's divergence from the standard normal, in nats."""
    dim: Count | None = None
    """Length of the code; None for half of the features."""

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with a :class:`VariationalHead` wherever its head stood.

        Raises:
            UserError: If the target's head is no linear layer.
        """
        head = linear_head(model, self.card.name)
        dim = self.dim or max(1, head.in_features // 2)
        replace_module(model, head, VariationalHead(head, dim, derive(context.seed, "served codes")))
        return model

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy at one draw of the code, plus the weighted divergence."""
        head = cast(VariationalHead, batch.model.head)
        mean, deviation = head.code(batch.model.features(batch.x))
        logits = head.classifier(mean + deviation * torch.randn_like(deviation))
        return batch.objective.mean(logits, batch.y) + self.beta * divergence(mean, deviation).mean()


class VariationalHead(nn.Module):
    """A random code and its linear classifier in the place of a linear head.

    Args:
        head: The head it replaces, for its sizes.
        dim: Length of the code.
        seed: Seed of the codes that are drawn in evaluation mode.
    """

    def __init__(self, head: nn.Linear, dim: int, seed: int) -> None:
        super().__init__()
        self.encoder = nn.Linear(head.in_features, 2 * dim)
        self.classifier = nn.Linear(dim, head.out_features, bias=head.bias is not None)
        self.seed = seed
        self._draws = generator(seed)

    def code(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the code, each ``(N, dim)``, for features ``(N, F)``."""
        mean, raw = self.encoder(features).chunk(2, 1)
        return mean, softplus(raw - SHIFT) + FLOOR

    def forward(self, features: Tensor) -> Tensor:
        """Return logits of a drawn code: by torch's generator in training mode, by its own in evaluation mode."""
        mean, deviation = self.code(features)
        if self._draws.device != mean.device:
            self._draws = generator(self.seed, mean.device)
        draws = None if self.training else self._draws
        noise = torch.randn(mean.shape, generator=draws, device=mean.device, dtype=mean.dtype)
        logits: Tensor = self.classifier(mean + deviation * noise)
        return logits
