"""Gradient matching: inputs whose gradient is the one that a client sent.

Parts of the attacks that invert one message at a time: a distance between gradients, and the L-BFGS descent of Zhu et
al. (Deep Leakage from Gradients, NeurIPS 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.errors import UserError
from mibench.optim.selection import Best


def squared_distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor:
    """Returns the squared l2 distance over all entries of all tensors of ``theirs`` (parameter name -> tensor)."""
    return torch.stack([(ours[name] - sent).square().sum() for name, sent in theirs.items()]).sum()


@dataclass(frozen=True)
class Lbfgs:
    """L-BFGS without line search.

    Attributes:
        iterations: Outer steps.
        inner: Iterations inside each.
        lr: Step length.
        history: Pairs of differences remembered.
        tolerance: An objective below it ends the descent.
    """

    iterations: int
    inner: int
    lr: float
    history: int
    tolerance: float

    def __post_init__(self) -> None:
        if min(self.iterations, self.inner, self.history) < 1 or self.lr <= 0:
            raise UserError(
                "Expected attack.iterations, attack.inner and attack.history to be at least 1 and attack.lr to be "
                f"positive, but got {self.iterations}, {self.inner}, {self.history} and {self.lr}."
            )

    def minimise(self, objective: Callable[[], Tensor], variables: Sequence[Tensor], best: Best) -> None:
        """Descends ``objective`` in ``variables``, in place, and offers every point it meets to ``best``.

        Ends at the tolerance, where the objective is no longer finite, and where a step changes nothing (every
        following step would be the same).

        Args:
            objective: A scalar function of the variables.
            variables: Leaf tensors that require gradients.
            best: Where the best point is kept.
        """
        optimizer = torch.optim.LBFGS(list(variables), lr=self.lr, max_iter=self.inner, history_size=self.history)

        def closure() -> Tensor:
            loss = objective()
            best.offer(variables, loss)
            for variable, gradient in zip(variables, torch.autograd.grad(loss, variables), strict=True):
                variable.grad = gradient
            return loss.detach()

        for _ in range(self.iterations):
            before = [variable.detach().clone() for variable in variables]
            loss = optimizer.step(closure)
            moved = any(not torch.equal(old, new) for old, new in zip(before, variables, strict=True))
            if not moved or not bool(loss.isfinite()) or float(best.loss) < self.tolerance:
                return
