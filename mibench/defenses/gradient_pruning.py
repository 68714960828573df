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

from mibench.defenses.base import Client, Defense, DefenseCard, Update
from mibench.optim.compression import by_group, largest
from mibench.options import Portion


class GradientPruning(Defense):
    """Top-k sparsification of the shared gradient."""

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
        stronger="lower",
        adaptive=("setting=federated attack=inverting_gradients attack.mask_sent=true",),
    )

    keep: Portion = 0.1
    """Share of the entries that is sent; 1 sends all."""
    scope: Literal["tensor", "all"] = "tensor"
    """Whether the share is taken of every ``tensor`` or of ``all`` tensors together."""

    def update(self, gradient: Update, client: Client) -> Update:
        """Return the gradient with zeros in the place of all but its largest entries."""
        if self.keep == 1:
            return gradient
        groups = [[name] for name in gradient] if self.scope == "tensor" else [list(gradient)]
        return by_group(gradient, groups, lambda entries: largest(entries, self.keep))
