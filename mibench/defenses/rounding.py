r"""Rounded confidences (Fredrikson et al., Model Inversion Attacks that Exploit Confidence Information, CCS 2015).

The service answers each probability rounded to a multiple of a step :math:`r`:

.. math:: p' = r \, \mathrm{round}(p / r)

so that small moves of the input leave the answer as it is and finite differences vanish. The label is kept: where
rounding ties the most probable class with another one, the true top class gets one step more. Labels are therefore
not affected. The answers need not sum to one; ``renormalise`` makes them. A saliency map is rounded likewise, in
shares of its largest entry.

There is no official code.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.defenses.base import Customer, Defense, DefenseCard
from mibench.options import Fraction


class Rounding(Defense):
    """Probabilities rounded to multiples of a step."""

    card = DefenseCard(
        name="rounding",
        title="Rounding",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2015,
        fidelity="paper",
        hooks=("output",),
        affects=("scores", "explanations"),
        strength="step",
        stronger="higher",
        levels=(0.001, 0.01, 0.05, 0.2),
        adaptive=("attack=inversion_network",),
    )

    step: Fraction = 0.05
    """The step; 0 leaves the answer as it is."""
    renormalise: bool = False
    """Whether the rounded answer is divided by its sum."""

    def output(self, probabilities: Tensor) -> Tensor:
        """Return the rounded probabilities ``(N, classes)``, in [0, 1], with the most probable class unchanged."""
        if not self.step:
            return probabilities
        counts = _keep_label((probabilities / self.step).round(), probabilities.argmax(1, keepdim=True))
        rounded = (counts * self.step).clamp_max(1)
        return rounded / rounded.sum(1, keepdim=True) if self.renormalise else rounded

    def explain(self, saliency: Tensor, x: Tensor, probabilities: Tensor, customer: Customer | None) -> Tensor:
        """Return the map rounded to multiples of the step times its largest entry, shape ``(N, ...)``."""
        if not self.step:
            return saliency
        largest = saliency.abs().flatten(1).amax(1).reshape(-1, *[1] * (saliency.dim() - 1))
        unit = self.step * largest.clamp_min(torch.finfo(saliency.dtype).tiny)
        return (saliency / unit).round() * unit


def _keep_label(counts: Tensor, top: Tensor) -> Tensor:
    """Return ``counts`` with one more for the top class where another class has come level with it."""
    others = counts.scatter(1, top, -1).max(1, keepdim=True).values
    best = counts.gather(1, top)
    return counts.scatter(1, top, torch.where(others >= best, best + 1, best))
