"""Parts of defenses that put a random code between features and head."""

from __future__ import annotations

from torch import Tensor, nn


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Puts ``new`` wherever ``old`` stands in ``model``: a foreign module holds its last layer itself, too."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Returns the divergence of diagonal Gaussians ``(N, dim)`` from the standard normal, in nats, shape ``(N,)``."""
    return (mean.square() + deviation.square() - 1 - 2 * deviation.log()).sum(1) / 2
