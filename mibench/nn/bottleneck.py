"""Parts of defenses that work on the head or behind a stage, or put a random code there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.errors import UserError
from mibench.model import Classifier


def linear_head(model: Classifier, defense: str) -> nn.Linear:
    """Return the head of a target.

    Raises:
        UserError: Naming the defense, if it is no linear layer.
    """
    if not isinstance(model.head, nn.Linear):
        raise UserError(f"defense={defense} needs a target whose head is one linear layer; choose another target.")
    return model.head


def plain_convolutions(model: Classifier) -> list[nn.Conv2d]:
    """Return a target's convolutions of one group, without dilation, padded with zeros, in the model's order."""
    return [
        layer
        for layer in model.stages.modules()
        if isinstance(layer, nn.Conv2d)
        and (layer.groups, layer.dilation, layer.padding_mode) == (1, (1, 1), "zeros")
        and isinstance(layer.padding, tuple)
    ]


def replace_module(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put ``new`` wherever ``old`` stands in ``model``: a foreign module holds its last layer itself, too."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is old:
                setattr(parent, name, new)


def put_behind(model: Classifier, stage: int, part: nn.Module, defense: str) -> None:
    """Let a stage of a target end with ``part``.

    Raises:
        UserError: Naming the defense, if the target does not run stage by stage.
    """
    kind = type(model)
    if kind.forward is not Classifier.forward or kind.blocks is not Classifier.blocks:
        raise UserError(
            f"defense={defense} acts behind a stage of the target, which this target runs in one piece; choose another "
            "target."
        )
    model.stages[stage] = nn.Sequential(model.stages[stage], part)


@torch.no_grad()
def client_shapes(model: Classifier, shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return the shape of what every stage of the client's part makes of one input of ``shape``."""
    modes = {module: module.training for module in model.modules()}
    h, shapes = torch.zeros(2, *shape, device=model.device), []
    for part in model.eval().client:
        h = part(h)
        shapes.append(tuple(h.shape[1:]))
    for module, mode in modes.items():
        module.training = mode
    return shapes[1:]  # the first part normalises


def divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the divergence of diagonal Gaussians ``(N, dim)`` from the standard normal, in nats, shape ``(N,)``."""
    return (mean.square() + deviation.square() - 1 - 2 * deviation.log()).sum(1) / 2
