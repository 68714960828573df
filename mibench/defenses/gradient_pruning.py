r"""Gradient pruning: only the largest entries are shared (evaluated as a defense by Zhu et al., Deep Leakage, 2019).

Of the :math:`n` entries of a gradient tensor, or of all tensors together, the client keeps the
:math:`k = \lceil n \cdot \mathrm{keep} \rceil` largest magnitudes and sends zeros for the rest:

.. math:: \tilde g_i = g_i \, [\, |g_i| \text{ is among the } k \text{ largest} \,].

What is pruned is lost: there is no error feedback and no momentum, which is what :mod:`mibench.defenses.dgc` adds. It
is a compression, not a privacy mechanism: what is sent is exact, and where it is not zero the attacker can match it.

This is the standard definition and no paper's own method; there is no official code. ``keep`` is one less what papers
call the pruning ratio; the default, a ratio of 0.9, is the weakest of those in common use. Of equal magnitudes just as
many are kept as make :math:`k`.
"""

from __future__ import annotations

from typing import Literal

import torch

from mibench.card import DefenseCard
from mibench.defenses.base import Client, Defense, Update
from mibench.optim.compression import largest
from mibench.options import Portion


class GradientPruning(Defense):
    """Top-k sparsification of the shared gradient.

    Args:
        keep: Share of the entries that is sent; 1 sends all.
        scope: Whether the share is taken of every ``tensor`` or of ``all`` tensors together.
    """

    card = DefenseCard(
        name="gradient_pruning",
        title="Gradient pruning",
        modalities=("image", "text", "tabular", "audio", "graph"),
        year=2019,
        bib="dlg",
        fidelity="paper",
        hooks=("update",),
        affects=("gradients",),
        strength="keep",
        adaptive=("setting=federated attack=inverting_gradients attack.mask_sent=true",),
    )

    def __init__(self, *, keep: Portion = 0.1, scope: Literal["tensor", "all"] = "tensor") -> None:
        self.keep = keep
        self.scope = scope

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the gradient with zeros in the place of all but its largest entries."""
        if self.keep == 1:
            return gradient
        if self.scope == "tensor":
            return {name: largest(value.flatten(), self.keep).reshape(value.shape) for name, value in gradient.items()}
        sizes = [value.numel() for value in gradient.values()]
        kept = largest(torch.cat([value.flatten() for value in gradient.values()]), self.keep).split(sizes)
        return {name: part.reshape(value.shape) for (name, value), part in zip(gradient.items(), kept, strict=True)}
