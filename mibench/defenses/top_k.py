r"""The k largest confidences alone (a service that names its first guesses).

Of the probability vector :math:`p` the service answers the :math:`k` largest entries. What was taken off goes nowhere
(``fill=zero``; ``renormalise`` then divides by the sum) or evenly to the other classes (``fill=uniform``). Of equal
entries no more than :math:`k` are answered, and the label is always among them, so labels are not affected.
:math:`k = 1` with ``renormalise`` says no more than the label; :math:`k` of all classes leaves the answer as it is.
Of a saliency map the same share of entries, the
largest, is served.

It does not protect from an attacker who knows of it: the inversion network of Yang et al. (Neural Network Inversion in
Adversarial Setting via Background Knowledge Alignment, CCS 2019) is trained on score vectors truncated as the victim
truncates, and so makes up for what is missing. That is the adaptive attack; label-only attacks do not notice it at all.

A standard measure without a paper of its own, and without official code.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from mibench.defenses.base import Customer, Defense, DefenseCard
from mibench.options import Count


class TopK(Defense):
    """Score vectors cut to their largest entries."""

    card = DefenseCard(
        name="top_k",
        title="Top-k truncation",
        modalities=("image", "text", "tabular", "audio", "graph"),
        fidelity="paper",
        hooks=("output",),
        affects=("scores", "explanations"),
        strength="k",
        stronger="lower",
        levels=(10, 5, 3, 1),
        adaptive=("attack=inversion_network",),
    )

    k: Count = 3
    """Entries that are answered; as many as there are classes, or more, leave the answer as it is."""
    fill: Literal["zero", "uniform"] = "zero"
    """What the other entries become: ``zero``, or ``uniform`` (the mass taken off, spread evenly)."""
    renormalise: bool = True
    """Whether an answer filled with zeros is divided by its sum."""

    def output(self, probabilities: Tensor) -> Tensor:
        """Return the truncated probabilities ``(N, classes)``, with the most probable class unchanged."""
        classes = probabilities.shape[1]
        if self.k >= classes:
            return probabilities
        label = probabilities.argmax(1, keepdim=True)
        largest = probabilities.scatter(1, label, torch.inf).topk(self.k, 1).indices
        kept = torch.zeros_like(probabilities).scatter(1, largest, probabilities.gather(1, largest))
        if self.fill == "uniform":
            rest = (probabilities.sum(1, keepdim=True) - kept.sum(1, keepdim=True)).clamp_min(0) / (classes - self.k)
            return torch.where(torch.zeros_like(kept).scatter(1, largest, 1).bool(), kept, rest)
        return kept / kept.sum(1, keepdim=True) if self.renormalise else kept

    def explain(self, saliency: Tensor, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the map with zeros in the place of all but its largest entries, ``k / classes`` of them."""
        classes, flat = probabilities.shape[1], saliency.flatten(1)
        kept = math.ceil(flat.shape[1] * min(self.k, classes) / classes)
        largest = flat.abs().topk(kept, 1).indices
        return torch.zeros_like(flat).scatter(1, largest, flat.gather(1, largest)).reshape(saliency.shape)
