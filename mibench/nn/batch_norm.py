"""Batch norm that normalises by the batch's own statistics, as in training, without remembering them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

#: Examples whose statistics are taken together by :func:`estimate_statistics`.
TOGETHER = 512


class _OwnStatistics1d(nn.BatchNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


class _OwnStatistics2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, None, None, self.weight, self.bias, training=True, eps=self.eps)


def use_batch_statistics(model: nn.Module) -> None:
    """Make every batch-norm layer of ``model`` normalise by its batch, in evaluation mode too; buffers stay.

    Unlike training mode it writes no buffer, so that the model can be batched with :func:`torch.func.vmap`.
    """
    for layer in norms(model).values():
        layer.__class__ = _OwnStatistics2d if isinstance(layer, nn.BatchNorm2d) else _OwnStatistics1d


def uses_batch_statistics(model: nn.Module) -> bool:
    """Whether an example's output depends on the others of its batch, by :func:`use_batch_statistics`."""
    return any(isinstance(layer, _OwnStatistics1d | _OwnStatistics2d) for layer in model.modules())


@torch.no_grad()
def estimate_statistics(model: nn.Module, x: Tensor) -> None:
    """Set the running statistics of ``model`` to those that its layers meet on ``x``, with the weights as they are.

    They are the means over batches of nearly the same size, at most ``TOGETHER``, as of batch norm without a momentum
    (Wu and Johnson, Rethinking "Batch" in BatchNorm, 2021). All other layers run as they stand, so that a model in
    evaluation mode draws nothing, unlike in ``torch.optim.swa_utils.update_bn``.

    Args:
        model: The model, in evaluation mode; its running statistics change, its momenta do not.
        x: Inputs of shape ``(N, ...)`` on the model's device, at least one; two where a layer sees one value each.
    """
    layers = list(norms(model).values())
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    for part in x.tensor_split(math.ceil(len(x) / TOGETHER)):
        model(part)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.eval()


def norms(model: nn.Module) -> dict[str, nn.BatchNorm1d | nn.BatchNorm2d]:
    """Return the batch-norm layers that remember statistics, by name, in the model's order."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) and layer.running_mean is not None
    }


def running_buffers(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the running statistics of every batch-norm layer by the buffer's name."""
    found = {}
    for name, layer in norms(model).items():
        for kind in ("running_mean", "running_var"):
            found[f"{name}.{kind}"] = getattr(layer, kind).detach().clone()
    return found
