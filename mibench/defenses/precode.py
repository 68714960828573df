r"""PRECODE: a variational bottleneck before the head (Scheliga et al., PRECODE, WACV 2022).

Between the features :math:`r` of dimension :math:`d` and the head stand a random code :math:`z` of dimension :math:`K`
and its decoder,

.. math:: (\mu, s) = W_e r + b_e, \quad \sigma = \mathrm{softplus}(s), \quad z = \mu + \sigma \epsilon, \quad
    \epsilon \sim \mathcal N(0, I), \quad \mathrm{logits} = \mathrm{head}(W_d z + b_d),

trained with the bits that the code tells of its input,

.. math:: L = \mathrm{CE} + \frac{\beta}{2 \ln 2} \, \mathrm{mean} \sum_k (\mu_k^2 + \sigma_k^2 - 1 - 2 \ln \sigma_k).

A client's gradient is that of this loss at one draw of :math:`\epsilon`, which the attacker does not know: no input
has just that gradient without the draw. The attacker holds the model with its bottleneck; :meth:`view.loss
<mibench.access.GradientsView.loss>` is plain cross-entropy, or this loss, drawn anew each time, where
``knowledge.defense_loss`` grants it. It protects neither the first layer where that is a linear one
(:math:`\partial W_i / \partial b_i` is its input whatever the draw), nor the label, nor against an attacker who leaves
everything from the bottleneck on out of the distance. The baseline ``beta=0`` is the bottleneck alone.

Official code: https://github.com/dAI-SY-Group/PRECODE (read for facts, written anew: it has no licence).
Deviations: a model in evaluation mode, as it is served and as an attacker evaluates it, answers with :math:`z = \mu`,
where the code draws always; so answers can be repeated, and the attacker's objective has no noise of its own. The
client's gradient is drawn in either mode, from torch's global generator. The head keeps its name, with the
bottleneck's layers below it.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from mibench.defenses.base import Batch, Classifier, Defense, DefenseCard, DefenseContext
from mibench.nn import bottleneck
from mibench.nn.bottleneck import linear_head, replace_module
from mibench.options import Count, NonNegative


class Precode(Defense):
    """A variational bottleneck between features and head."""

    card = DefenseCard(
        name="precode",
        title="PRECODE",
        modalities=("image", "tabular"),
        year=2022,
        code="https://github.com/dAI-SY-Group/PRECODE",
        fidelity="official",
        hooks=("architecture", "training"),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="beta",
        stronger="higher",
        levels=(1e-4, 1e-3, 1e-2, 1e-1),
        baselines=(("beta", 0.0),),
        adaptive=(
            "setting=federated attack=inverting_gradients attack.skip_last=6",
            "setting=federated attack=inverting_gradients knowledge.defense_loss=true",
        ),
    )

    dim: Count = 256
    """Length of the code (K)."""
    beta: NonNegative = 1e-3
    """Weight of the code's divergence from the standard normal, in bits."""

    def architecture(self, model: Classifier, context: DefenseContext) -> Classifier:
        """Return the module with a :class:`BottleneckHead` wherever its head stood.

        Raises:
            UserError: If the target's head is no linear layer.
        """
        head = linear_head(model, self.card.name)
        replace_module(model, head, BottleneckHead(head, self.dim))
        return model

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy at one draw of the code, plus the weighted divergence."""
        head = cast(BottleneckHead, batch.model.head)
        mean, deviation = head.code(batch.model.features(batch.x))
        logits = head.decode(mean + deviation * torch.randn_like(deviation))
        return batch.objective.mean(logits, batch.y) + self.beta * divergence(mean, deviation).mean()


class BottleneckHead(nn.Linear):
    """A linear head behind a variational bottleneck; its own weight and bias are those of the head it replaces.

    Args:
        head: The head.
        dim: Length of the code.
    """

    def __init__(self, head: nn.Linear, dim: int) -> None:
        super().__init__(head.in_features, head.out_features, bias=head.bias is not None)
        self.weight, self.bias = head.weight, head.bias
        self.encoder = nn.Linear(head.in_features, 2 * dim)
        self.decoder = nn.Linear(dim, head.in_features)

    def code(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the code, each ``(N, dim)``, for features ``(N, d)``."""
        mean, raw = self.encoder(features).chunk(2, 1)
        return mean, softplus(raw)

    def decode(self, code: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` of codes ``(N, dim)``."""
        return super().forward(self.decoder(code))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits: of a drawn code in training mode, of the mean code in evaluation mode."""
        mean, deviation = self.code(features)
        return self.decode(mean + deviation * torch.randn_like(deviation) if self.training else mean)


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the divergence of diagonal Gaussians ``(N, dim)`` from the standard normal, in bits, shape ``(N,)``."""
    return bottleneck.divergence(mean, deviation) / math.log(2)
