"""Adam on every row of a batched problem (:mod:`mibench.optim.problems`)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mibench.optim.problems import Dropping, Found, Objective, in_parts


@dataclass(frozen=True)
class Adam:
    """Adam on every row, with the schedules that gradient inversion uses.

    Attributes:
        iterations: Steps.
        lr: Step size.
        signed: Whether Adam sees the sign of the gradient (Geiping et al., 2020).
        decay_at: Shares of the steps after which the step size falls to a tenth.
        warmup: First steps over which it rises from 0.
        cosine: Whether it falls along a half cosine to 0 after the warm-up.
        rise: Share of the steps over which it rises from 0.
        fall: Share of the steps over which it falls to 0 at the end, along a half cosine.
        langevin: Standard deviation, in step sizes, of the noise added to the gradient (Yin et al., 2021).
        linear: Whether the step size falls along a line to 0 after the warm-up.
        decay: Share of a variable, times the step size, that every step takes off it (AdamW).
        fade: What the step size is multiplied by at a time.
        fade_every: Steps from one such time to the next.
        betas: Adam's decay rates.
        dropping: Which problems end early.
    """

    iterations: int
    lr: float
    signed: bool = False
    decay_at: Sequence[float] = ()
    warmup: int = 0
    cosine: bool = False
    rise: float = 0.0
    fall: float = 0.0
    langevin: float = 0.0
    linear: bool = False
    decay: float = 0.0
    fade: float = 1.0
    fade_every: int = 50
    betas: tuple[float, float] = (0.9, 0.999)
    dropping: Dropping = field(default_factory=Dropping)

    def rate(self, step: int) -> float:
        """Return the step size of ``step``."""
        rate = self.lr * 0.1 ** sum(step >= int(share * self.iterations) for share in self.decay_at)
        rate *= self.fade ** (step // self.fade_every)
        if step < self.warmup:
            rate *= (step + 1) / self.warmup
        elif self.cosine:
            rate *= 0.5 * (1 + math.cos(math.pi * (step - self.warmup) / max(1, self.iterations - self.warmup)))
        elif self.linear:
            rate *= (self.iterations - step) / max(1, self.iterations - self.warmup)
        done = step / self.iterations
        if done < self.rise:
            rate *= done / self.rise
        if 1 - done < self.fall:
            rate *= 0.5 * (1 - math.cos(math.pi * (1 - done) / self.fall))
        return rate

    def minimise(
        self,
        objective: Objective,
        variables: Sequence[Tensor],
        found: Found,
        steps: Iterable[int],
        *,
        project: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]] | None = None,
        reshape: Callable[[list[Tensor]], list[Tensor]] | None = None,
        draws: Sequence[torch.Generator] = (),
    ) -> list[Tensor]:
        """Descend in ``variables``, which are copied, offer every point to ``found``, and return the last ones.

        Args:
            objective: The objective.
            variables: Where to start, each of shape ``(problems, ...)``.
            found: Where the best points are kept.
            steps: An attack's own ``self.steps(iterations)``.
            project: Returns the variables of ``rows`` brought back to where they may be, after every step.
            reshape: Returns what the gradients are replaced by before Adam sees them.
            draws: Random generators of the Langevin noise on the variables' device, one per problem, so that what a
                problem draws does not depend on the others.

        Returns:
            The variables of all problems as they were when each ended.
        """
        rows = found.problems.rows
        last = [variable.detach().clone() for variable in variables]
        moving = [variable.clone() for variable in last]
        moments = [[torch.zeros_like(one) for one in moving] for _ in range(2)]
        for step in steps:
            _, gradients = found.look(objective, rows, moving)
            rate = self.rate(step)
            if self.langevin and draws:
                gradients = [g + self.langevin * rate * _normal(g, rows, draws) for g in gradients]
            if reshape is not None:
                gradients = reshape(gradients)
            if self.signed:
                gradients = [gradient.sign() for gradient in gradients]
            self._move(moving, gradients, moments, rate, step + 1)
            if project is not None:
                moving = list(project(rows, moving))
            going = self.dropping.survivors(found, rows, step + 1, self.iterations)
            if not bool(going.all()):
                here = going.to(moving[0].device)
                for whole, part in zip(last, moving, strict=True):
                    whole[rows.to(whole.device)] = part
                moving = [one[here] for one in moving]
                moments = [[one[here] for one in each] for each in moments]
                rows = rows[going]
            if not len(rows):
                return last
        for whole, part in zip(last, moving, strict=True):
            whole[rows.to(whole.device)] = part
        for part, own in in_parts(rows, moving, found.problems.at_once):
            _, scores, *result = objective(part, *own)
            found.offer(part, result or own, scores.detach())
        return last

    def _move(
        self, moving: list[Tensor], gradients: Sequence[Tensor], moments: list[list[Tensor]], rate: float, count: int
    ) -> None:
        first, second = self.betas
        for value, gradient, mean, square in zip(moving, gradients, *moments, strict=True):
            mean.lerp_(gradient, 1 - first)
            square.mul_(second).addcmul_(gradient, gradient, value=1 - second)
            size = (square / (1 - second**count)).sqrt_().add_(1e-8)
            if self.decay:
                value.mul_(1 - rate * self.decay)
            value.addcdiv_(mean, size, value=-rate / (1 - first**count))


def norm_at_most(bound: float) -> Callable[[list[Tensor]], list[Tensor]]:
    """Return what scales the gradients of every problem, over all variables together, to a norm of ``bound``."""

    def clipped(gradients: list[Tensor]) -> list[Tensor]:
        norm = torch.stack([one.flatten(1).square().sum(1) for one in gradients]).sum(0).sqrt()
        factor = (bound / norm.clamp_min(1e-12)).clamp_max(1)
        return [one * factor.reshape(-1, *[1] * (one.dim() - 1)) for one in gradients]

    return clipped


def _normal(like: Tensor, rows: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
    """Return standard-normal numbers of the shape of ``like``, each row's from its own generator."""
    own = [torch.randn(like.shape[1:], generator=draws[row], device=like.device) for row in rows.tolist()]
    return torch.stack(own).to(like.dtype)
