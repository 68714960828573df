r"""Soteria: the representation is perturbed in the update (Sun et al., Provable Defense against Privacy Leakage, 2021).

The gradient of a linear layer tells the representation :math:`r` that entered it. The client looks for the entries of
:math:`r` that tell much of its input :math:`x` and cost the gradient little, and takes them out of it. Over its batch,

.. math:: s_i = \sum_{n} \frac{\| \partial r_{n,i} / \partial x_n \|_2}{r_{n,i} + 0.1}, \qquad
    m_i = [\, |s_i| \ge \theta \,], \qquad \tilde G = G \, \mathrm{diag}(m),

where :math:`G` (classes x entries) is the gradient of the head's weight and :math:`\theta` the ``percentile``-th
percentile of :math:`s`: pruned are the entries that are largest for how little they move with the input. All other
tensors, the head's bias among them, are shared as they are, so that an attacker who leaves the head out of the
distance meets no defense at all.

Official code: https://github.com/jeremy313/Soteria. There the perturbed layer's index and the percentile are written
into each attack's script: 1 against DLG, 60 against Inverting Gradients (and there without the 0.1 for DLG, which is
0/0 for dead units). Here it is the head of any target, and :math:`x` is, as there, the normalised input. As there,
ties at the threshold stay: where more units are dead (:math:`s_i = 0`) than the percentile, nothing is pruned, and
where fewer are, they are counted as pruned although their columns are zero anyway.
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor, nn

from mibench.defenses.base import Classifier, Client, Defense, DefenseCard, Update
from mibench.nn.bottleneck import linear_head
from mibench.options import Range

#: What is added to an entry before its sensitivity is divided by it.
OFFSET = 0.1

#: Entries of the representation that are differentiated at once.
CHUNK = 64


class Soteria(Defense):
    """Columns of the head's gradient are set to zero."""

    card = DefenseCard(
        name="soteria",
        title="Soteria",
        modalities=("image", "tabular"),
        year=2021,
        code="https://github.com/jeremy313/Soteria",
        fidelity="official",
        hooks=("update",),
        affects=("gradients",),
        strength="percentile",
        stronger="higher",
        adaptive=("setting=federated attack=inverting_gradients attack.skip_last=2",),
    )

    percentile: Annotated[float, Range("from 0 to below 100", lambda value: 0 <= value < 100)] = 1.0
    """Percent of the head's columns that are pruned; 0 for none."""

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the gradient with the chosen columns of the head's weight set to zero.

        Raises:
            UserError: If the target's head is no linear layer.
        """
        head = linear_head(client.model, self.card.name)
        if not self.percentile:
            return gradient
        (name,) = (name for name, value in client.model.named_parameters() if value is head.weight)
        sensitivity = relative_sensitivity(client.model, client.batch.x)
        mask = sensitivity.abs() >= torch.quantile(sensitivity, self.percentile / 100)
        return {**gradient, name: gradient[name] * mask}


def relative_sensitivity(model: Classifier, x: Tensor) -> Tensor:
    """Return s, one value per entry of the representation, for a batch of inputs ``(N, ...)``."""
    with torch.enable_grad():
        inputs, representation = _from_normalised(model, x)
        norms = []
        for units in torch.eye(representation.shape[1], device=x.device).split(CHUNK):
            select = units[:, None].expand(-1, len(x), -1)
            (jacobian,) = torch.autograd.grad(representation, inputs, select, retain_graph=True, is_grads_batched=True)
            norms.append(jacobian.flatten(2).norm(dim=2))
    return (torch.cat(norms).T / (representation.detach() + OFFSET)).sum(0)


def _from_normalised(model: Classifier, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the normalised inputs as leaves, and the representation ``(N, F)`` that follows from them."""
    leaves = []

    def cut(_module: nn.Module, _inputs: object, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_(True))
        return leaves[-1]

    handle = model.normalise.register_forward_hook(cut)
    try:
        representation = model.features(x)
    finally:
        handle.remove()
    return leaves[-1], representation
