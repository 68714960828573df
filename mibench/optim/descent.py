"""Descent on what an attack optimises: all samples together, gradients of nothing but the variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

#: Returns the objective of every sample, shape ``(N,)``, from the variables.
Objective = Callable[..., Tensor]


def adam_descent(
    variables: Sequence[Tensor],
    objective: Objective,
    steps: Iterable[int],
    *,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
    schedule: Callable[[int], float] | None = None,
    project: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None,
    after: Callable[[Sequence[Tensor], Tensor], None] | None = None,
) -> list[Tensor]:
    """Return the variables after Adam's steps; the gradient of a sample does not depend on the others.

    Args:
        variables: Where to start; each of shape ``(N, ...)``. They are copied.
        objective: Called with the variables.
        steps: An attack's own ``self.steps(n)``.
        lr: Step size.
        betas: Adam's decay rates.
        eps: Added to the root of Adam's second moment.
        amsgrad: Whether the step is divided by the largest second moment so far (Reddi et al., ICLR 2018).
        schedule: Factor of ``lr`` at each step; None keeps it.
        project: Returns the variables brought back to where they may be; called after every step, without gradient.
        after: Called after every step with the projected variables and the objective before the step, detached.
    """
    moving = [variable.detach().clone().requires_grad_(True) for variable in variables]
    adam = torch.optim.Adam(moving, lr=lr, betas=betas, eps=eps, amsgrad=amsgrad)
    for step in steps:
        if schedule is not None:
            for group in adam.param_groups:
                group["lr"] = lr * schedule(step)
        losses = objective(*moving)
        gradients = torch.autograd.grad(losses.sum(), moving)
        for variable, gradient in zip(moving, gradients, strict=True):
            variable.grad = gradient
        adam.step()
        with torch.no_grad():
            if project is not None:
                for variable, allowed in zip(moving, project(moving), strict=True):
                    variable.copy_(allowed)
            if after is not None:
                after([variable.detach() for variable in moving], losses.detach())
    return [variable.detach() for variable in moving]


def in_chunks(function: Callable[..., Tensor], size: int, *tensors: Tensor) -> Tensor:
    """Return ``function`` of the tensors' rows, ``size`` of them at a time, concatenated."""
    return torch.cat([function(*rows) for rows in zip(*(one.split(size) for one in tensors), strict=True)])
