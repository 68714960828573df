"""Parts of defenses that work on the head, or put a random code before it."""

from __future__ import annotations

from torch import Tensor, nn

from mibench.errors import UserError
from mibench.model import Classifier


def linear_head(model: Classifier, defense: str) -> nn.Linear:
    """Returns the head of a target.

    Raises:
        UserError: Naming the defense, if it is no linear layer.
    """
    if not isinstance(model.head, nn.Linear):
        raise UserError(f"defense={defense} needs a target whose head is one linear layer; choose another target.")
    return model.head


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts ``new`` wherever ``old`` stands in ``model``: a foreign module holds its last layer itself, too."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Returns the divergence of diagonal Gaussians ``(N, dim)`` from the standard normal, in nats, shape ``(N,)``."""
    return (mean.square() + deviation.square() - 1 - 2 * deviation.log()).sum(1) / 2
