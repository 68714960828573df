"""The family of GMI: latents descend under identity loss and the generator's critics."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mibench.access import WhiteBoxView
from mibench.attacks.base import Attack, GoalT, ViewT
from mibench.optim.identity import cross_entropy
from mibench.optim.momentum import nesterov_descent
from mibench.optim.selection import best_of_each
from mibench.options import Count, Decay, Options, Positive


class CriticWeights(Options):
    """A loss of two terms."""

    identity_weight: float = 100.0
    """Weight of the cross-entropy (the paper's lambda)."""
    prior_weight: float = 1.0
    """Weight of the critic."""

    def weighted(self, identity: Tensor, realism: Tensor) -> Tensor:
        """Return the loss of every sample, shape ``(N,)``, from its identity loss and what the critic says of it."""
        return self.identity_weight * identity - self.prior_weight * realism


class BoxedDescent(Attack[ViewT, GoalT]):
    """A descent by Nesterov steps of latents that stay in a box."""

    length = ("iterations",)

    iterations: Count = 1500
    """Descent steps."""
    lr: Positive = 0.02
    """Step size."""
    momentum: Decay = 0.9
    """Nesterov momentum."""
    clip: Positive = 1.0
    """Half-width of the latent box."""
    batch: Count = 100
    """Number of samples whose mean loss the authors step along; a sample's gradient is divided by it."""

    def descend(
        self, z: Tensor, loss: Callable[[Tensor], Tensor], after: Callable[[Tensor], None], what: str = ""
    ) -> Tensor:
        """Return the latents after the descent on ``loss``, which returns one value per latent."""
        return nesterov_descent(
            z,
            loss,
            self.steps(self.iterations, what),
            lr=self.lr,
            momentum=self.momentum,
            bound=self.clip,
            batch=self.batch,
            after=after,
        )


@torch.no_grad()
def surest(view: WhiteBoxView, images: Tensor, labels: Tensor, tries: int) -> Tensor:
    """Return of each sample's ``tries``, side by side, the position of the one that the target is surest of."""
    with view.phase("select"):
        nll = cross_entropy(view.logits(images), labels)
    return best_of_each(-nll, len(labels) // tries, 1)
