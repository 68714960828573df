r"""MIRROR, gradient version: search of a generator's styles inside the box of usual ones.

An et al., MIRROR: Model Inversion for Deep Learning Network with High Fidelity, NDSS 2022.
The attacker owns the target's weights and a style-based generator that was trained on public images. Styles :math:`w`
leave a leaky ReLU of slope 0.2; before it, in :math:`P` space, they are nearly normal. For a class :math:`y` the search
starts at the styles of a random pool which the target scores highest and descends

.. math:: L(w) = \lambda \, \mathrm{CE}(T(S(w)), y), \qquad
    \mathrm{lrelu}_{0.2}(\mu - c \sigma) \le w \le \mathrm{lrelu}_{0.2}(\mu + c \sigma)

with :math:`\mu, \sigma` the mean and deviation, dimension by dimension, of :math:`\mathrm{lrelu}_5(w)` over the pool:
after every step :math:`w` is clipped to what the generator usually sees. The step size rises over the first twentieth
of the steps and falls along a cosine over the last quarter; of every sample the :math:`w` of the lowest loss met is
returned. The weight :math:`\lambda` decides nothing: Adam's step does not see a factor of the loss, and the lowest loss
is the same style's. It stays for the release's sake.

Official code: https://github.com/njuaplusplus/mirror (``my_whitebox_mirror.py``). It keeps one step for a whole batch,
that of the lowest mean loss, and of it the styles *after* the step, to which that loss does not belong. Which samples
share a batch then changes every result, so this is not the default. ``returned=batch`` does it, with the samples of a
class as the batch. Further deviations: a view is mirrored per sample and not per batch, and only where that keeps the
class; the start is clipped too; no dropout in the target; the first choice looks at both mirror images, as PPA does,
where the class allows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from mibench.access import WhiteBoxView
from mibench.attacks.base import AttackCard, ClassGoal, Knowledge, Reconstruction
from mibench.attacks.families.style_start import StyleStart
from mibench.model import StylePrior
from mibench.optim.augmentation import Views
from mibench.optim.constraints import box
from mibench.optim.selection import take_best
from mibench.optim.style_search import best_styles, painted, style_descent
from mibench.options import Count, NonNegative, Positive, option


class MirrorWhite(StyleStart):
    """Search of styles under cross-entropy, inside the box of usual styles."""

    card = AttackCard(
        name="mirror_white",
        title="MIRROR (gradients)",
        modalities=("image",),
        year=2022,
        code="https://github.com/njuaplusplus/mirror",
        fidelity="official",
        family="generative",
        task="class",
        access=("white_box",),
        needs=("public", "prior"),
        space="style",
    )
    length = ("iterations",)

    latents: Count = 100_000
    """Size of the random pool, at least the budget's samples."""
    psi: NonNegative = 0.7
    """Truncation of the pool."""
    deviations: NonNegative = 1.0
    """Half-width of the box in standard deviations of P space (the paper's c)."""
    iterations: Count = 20_000
    """Descent steps."""
    lr: Positive = 0.25
    """Adam's largest step size."""
    identity_weight: Positive = 10.0
    """Weight of the cross-entropy."""
    returned: Literal["sample", "batch"] = option("sample", since=2)
    """What is returned: each ``sample``'s best style, or the styles after the best step of a class's ``batch``."""

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return ``goal.samples`` images per class."""
        prior = knowledge.prior
        assert isinstance(prior, StylePrior)
        labels = goal.labels.to(view.device)
        pool = self.pool(view, prior, goal)
        low, high = usual_styles(pool, self.deviations)
        w = box(best_styles(view, prior, pool, goal.targets.to(view.device), goal.samples), low, high)
        best, loss = w.clone(), torch.full((len(w),), torch.inf, device=w.device)

        def remember(moving: Sequence[Tensor], losses: Tensor) -> None:
            nonlocal w, best, loss
            after = moving[0].clone()
            if self.returned == "sample":  # the loss is that of the style before the step
                best, loss = take_best(best, loss, w, losses)
            else:
                means = losses.reshape(-1, goal.samples).mean(1).repeat_interleave(goal.samples)
                best, loss = take_best(best, loss, after, means)
            w = after
            self.keep(lambda: Reconstruction(painted(prior, best), labels))

        style_descent(
            prior,
            [w],
            lambda images: self.identity_weight * self.identify(view, images, labels),
            self.steps(self.iterations),
            lr=self.lr,
            betas=(0.9, 0.999),
            schedule=self.ramp,
            views=Views(mirror=0.5 * view.spec.mirrored),
            draws=self.draws(view.device, "views"),
            project=lambda moving: [box(moving[0], low, high)],
            after=remember,
        )
        return Reconstruction(painted(prior, best), labels)

    def ramp(self, step: int) -> float:
        """Return the factor of the step size at a step."""
        share = step / self.iterations
        return (0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - share) / 0.25))) * min(1.0, share / 0.05)


def usual_styles(pool: Tensor, deviations: float) -> tuple[Tensor, Tensor]:
    """Return the least and the largest usual style, each of shape ``(w_dim,)``.

    Args:
        pool: Styles ``(N, w_dim)``.
        deviations: Half-width of the box in standard deviations of P space.
    """
    p = leaky_relu(pool, 5.0)
    mean, deviation = p.mean(0), p.std(0)
    return leaky_relu(mean - deviations * deviation, 0.2), leaky_relu(mean + deviations * deviation, 0.2)
