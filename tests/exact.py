"""What exact tests of methods share: a method is stopped where its loop begins, and what it hands over is looked at.

A search that is run tells little of a term of small weight. What it descends, and by which schedule, is known exactly:
``inside`` ends a method at its first call of the loop and looks at the arguments, where they still work; ``steps_of``
gives the losses that networks would step along. Both are compared with the formula of the docstring, written out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mibench.access import GradientsView


class Ended(BaseException):
    """Ends a method, which does not take it for an error."""


def inside(owner: Any, name: str, run: Callable[[], Any], look: Callable[..., Any]) -> Any:
    """Return what ``look`` makes of the first call of ``owner.name`` in ``run()``, which ends there."""
    seen: list[Any] = []

    def end(*args: Any, **named: Any) -> None:
        seen.append(look(*args, **named))
        raise Ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, end)
        with pytest.raises(Ended):
            run()
    return seen[0]


def steps_of(owner: Any, run: Callable[[], Any], count: int) -> list[tuple[float, Any]]:
    """Return loss and module of the first ``count`` calls of ``owner.step_along`` in ``run()``; no step is taken."""
    taken: list[tuple[float, Any]] = []

    def step(_optimizer: Any, loss: Tensor, module: Any) -> None:
        taken.append((float(loss.detach()), module))
        if len(taken) == count:
            raise Ended

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, "step_along", step)
        with pytest.raises(Ended):
            run()
    return taken


class Spy:
    """A function that remembers what it was given first and what it returned.

    Args:
        function: What is called.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function = function
        self.given: list[Any] = []
        self.returned: list[Tensor] = []

    def __call__(self, *args: Any, **named: Any) -> Tensor:
        self.given.append(args[0].detach().clone() if isinstance(args[0], Tensor) else args[0])
        self.returned.append(self.function(*args, **named))
        return self.returned[-1]


def variation(images: Tensor, power: int = 1) -> Tensor:
    """Return the mean absolute (or squared) difference to the right and lower neighbour, shape ``(N,)``."""
    right, down = images[..., 1:] - images[..., :-1], images[..., 1:, :] - images[..., :-1, :]
    return sum(one.abs().pow(power).flatten(1).mean(1) for one in (right, down))


def sent_of(view: GradientsView, restarts: int = 1) -> dict[str, Tensor]:
    """Return the messages of a view by parameter name, shape ``(messages * restarts, ...)``, those of one together."""
    return {
        name: torch.stack([one[name] for one in view.messages for _ in range(restarts)]) for name in view.messages[0]
    }


def squared_distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """Return the sum of squared differences of two gradients over all tensors of ``theirs``, shape ``(n,)``."""
    return torch.stack([(ours[name] - sent).square().flatten(1).sum(1) for name, sent in theirs.items()]).sum(0)


def cosine_distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> Tensor:
    """Return one minus the cosine of two gradients over all tensors of ``theirs``, shape ``(n,)``."""
    first = torch.cat([ours[name].flatten(1) for name in theirs], 1)
    second = torch.cat([sent.flatten(1) for sent in theirs.values()], 1)
    return 1 - torch.nn.functional.cosine_similarity(first, second)
