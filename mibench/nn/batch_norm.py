"""Batch norm that normalises by the batch's own statistics, as in training, without remembering them."""

from __future__ import annotations

from torch import Tensor, nn


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
