r"""Negative label smoothing (Struppek et al., Be Careful What You Smooth For, ICLR 2024).

The target is trained towards smoothed labels whose smoothing factor is below zero: away from all other classes, beyond
certainty,

.. math:: L = (1 - \alpha) \, (-\log p_y) + \alpha \, \frac{1}{C} \sum_c (-\log p_c), \qquad \alpha < 0.

Optimised inputs then meet a loss whose gradient no longer leads towards the class. Negative smoothing destabilises a
fresh model, so it comes in late: with :math:`t` the share of the training that is over, :math:`\alpha_t = 0` below
``warmup``, then it grows in proportion to :math:`(t - \mathrm{warmup}) / (1 - \mathrm{warmup})`, and from ``full`` on
it is :math:`\alpha` (a jump from half of it at the defaults, as in the code).

A positive :math:`\alpha` is ordinary label smoothing, which makes inversion easier: the negative control. It has no
schedule and holds from the first step on, so that it meets the full learning rate, as in the code. The loss has no
lower bound for :math:`\alpha < 0`; logits grow until schedule, decay or the end of the training stop them.

What it does not protect from: it hides gradients and distorts scores more than it takes information away, so the
attacker who knows of it asks for labels only (BREP-MI) or inverts a surrogate trained on the victim's answers. A
client's federated gradient is that of this loss at the share of the rounds that is over: before ``warmup`` the plain
one, and at no time one that hides its input.

Official code: https://github.com/LukasStruppek/Plug-and-Play-Attacks (``train_model.py``). Deviations: the schedule
counts steps where the code counts its 100 epochs, so that it fits any recipe; the recipe and the augmentation are the
target's own. The authors' learning rate falls after three quarters of the training, so their ramp meets the full one;
where a target's falls earlier, the ramp meets what is left.
"""

from __future__ import annotations

from torch import Tensor

from mibench.defenses.base import Batch, Defense, DefenseCard, cross_entropy
from mibench.errors import UserError
from mibench.options import Decay, Fraction


class NegLs(Defense):
    """Training with smoothed labels, at the authors' defaults negatively."""

    card = DefenseCard(
        name="neg_ls",
        title="Negative label smoothing",
        modalities=("image", "text", "tabular", "audio", "graph"),
        revision=2,
        year=2024,
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        fidelity="official",
        hooks=("training",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="alpha",
        stronger="lower",
        levels=(-0.01, -0.05, -0.1, -0.2),
        adaptive=("attack=brepmi", "setting=federated attack=inverting_gradients knowledge.defense_loss=true"),
    )

    alpha: float = -0.05
    """The smoothing factor, below 1; negative as the defense, 0 plain cross-entropy, positive as the control."""
    warmup: Decay = 0.5
    """Share of the training without smoothing, of a negative factor."""
    full: Fraction = 0.75
    """Share of the training after which the factor is ``alpha`` at once; at least ``warmup``; 0 for no schedule."""

    def __post_init__(self) -> None:
        """Check the options together."""
        super().__post_init__()
        if self.alpha >= 1:
            raise UserError(f"Expected defense.alpha to be below 1, but got {self.alpha}.")
        if self.full < self.warmup:
            raise UserError(f"Expected defense.full >= defense.warmup, but got full={self.full}, warmup={self.warmup}.")

    def factor(self, progress: float) -> float:
        """Return the smoothing factor when ``progress`` of the training, in [0, 1], is over."""
        if self.alpha >= 0 or progress >= self.full:
            return self.alpha
        return self.alpha * max(0.0, (progress - self.warmup) / (1 - self.warmup))

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy with smoothed labels, the plain one while the factor is zero."""
        factor = self.factor(batch.progress)
        if not factor:
            return cross_entropy(batch)
        surprisal = -batch.model(batch.x).log_softmax(1)
        smoothed: Tensor = (1 - factor) * surprisal.gather(1, batch.y[:, None]).mean() + factor * surprisal.mean()
        return smoothed
