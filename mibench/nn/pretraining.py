"""Training on public data before the private ones, under a head of their own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mibench.data import Examples
from mibench.nn.bottleneck import linear_head, replace_module
from mibench.seeding import derive, seeded
from mibench.training import Batch, Training, cross_entropy


def with_known_classes(public: Examples | None) -> Examples | None:
    """Return public data with their class ids counted from 0; None where they are not of several known classes."""
    if public is None or len(public.y.unique()) < 2 or bool((public.y < 0).any()):
        return None
    return Examples(public.x, torch.unique(public.y, return_inverse=True)[1])


def learn_public(
    training: Training, public: Examples, defense: str, loss: Callable[[Batch], Tensor] = cross_entropy
) -> None:
    """Train the model of ``training`` on labelled public data by the same recipe, and give it its head back.

    Raises:
        UserError: Naming the defense, if the target's head is no linear layer.
    """
    model, head = training.model, linear_head(training.model, defense)
    seed = derive(training.seed, "public")
    with seeded(seed):
        own = nn.Linear(head.in_features, int(public.y.max()) + 1).to(training.device)
    replace_module(model, head, own)
    label = f"{training.label} (public)"
    Training(model, public, training.recipe, seed, training.device, training.precision, label).run(loss)
    replace_module(model, own, head)
