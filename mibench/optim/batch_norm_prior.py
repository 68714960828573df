"""Batch-norm statistics of a client's batch, as far as the server knows them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.nn.batch_norm import norms


def known_statistics(view: GradientsView) -> list[Tensor]:
    """Return the statistics to compare with, per batch-norm layer of shape ``(messages or 1, 2, channels)``.

    Where buffers came with the messages these are the client's own, recovered from the running ones: of momentum
    :math:`m` after :math:`k` steps, :math:`(new - (1 - m)^k old) / (1 - (1 - m)^k)`; without a momentum the running
    ones are means over all batches, of which :math:`n` came before, and :math:`n / (n + k)` is in the place of
    :math:`(1 - m)^k`. Else, and of a layer that does not move (momentum 0), they are what the global model
    remembers. Empty where there is nothing to know: no such layer, or a model that has not trained.
    """
    layers = norms(view.model)
    before = [torch.stack([layer.running_mean, layer.running_var])[None] for layer in layers.values()]  # type: ignore[list-item]
    if any(view.buffers):
        steps = view.known_local.steps(view.batch_size // view.clients) if view.deltas else 1
        known = []
        for (name, layer), old in zip(layers.items(), before, strict=True):
            kinds = (f"{name}.running_mean", f"{name}.running_var")
            new = torch.stack([torch.stack([sent[kind] for kind in kinds]) for sent in view.buffers])
            stays = remaining(layer, steps)
            known.append((new - stays * old) / (1 - stays) if stays < 1 else old)
        return known
    fresh = all(bool((layer[:, 0] == 0).all() and (layer[:, 1] == 1).all()) for layer in before)
    return [] if fresh else before


def remaining(layer: nn.BatchNorm1d | nn.BatchNorm2d, steps: int) -> float:
    """Return the share of a layer's running statistics that is left of them after ``steps`` batches, from 0 to 1."""
    if layer.momentum is not None:
        return float((1 - layer.momentum) ** steps)
    met = 0 if layer.num_batches_tracked is None else int(layer.num_batches_tracked)
    return met / (met + steps)


def of_messages(known: list[Tensor], messages: Tensor) -> list[Tensor]:
    """Return of :func:`known_statistics` what concerns ``messages``, of shape ``(n or 1, 2, channels)`` per layer."""
    return [layer[messages] if len(layer) > 1 else layer for layer in known]
