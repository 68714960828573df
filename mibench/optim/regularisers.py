"""Image regularisers: what natural images have little of, one number per sample or per batch."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mibench.nn.batch_norm import norms


def total_variation(images: Tensor, power: Literal[1, 2] = 1, diagonals: bool = False) -> Tensor:
    """Return the mean absolute (or squared) difference of neighbouring pixels, shape ``(N,)``.

    Args:
        images: Shape ``(N, C, H, W)``.
        power: 1 for absolute, 2 for squared differences.
        diagonals: Whether both diagonal neighbours count beside the right and the lower one.
    """
    each = [one.abs().pow(power).flatten(1).mean(1) for one in differences(images, diagonals)]
    return torch.stack(each).sum(0)


def batch_variation(batches: Tensor) -> Tensor:
    """Return the mean :func:`total_variation` of every batch, shape ``(n,)``, for ``(n, batch, C, H, W)``."""
    return total_variation(batches.flatten(0, 1)).reshape(len(batches), -1).mean(1)


def differences(images: Tensor, diagonals: bool) -> list[Tensor]:
    """Return the differences of neighbouring pixels by direction: right, down and, where asked, both diagonals."""
    found = [images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]]
    if diagonals:
        found += [images[..., 1:, 1:] - images[..., :-1, :-1], images[..., 1:, :-1] - images[..., :-1, 1:]]
    return found


def l2_norm(images: Tensor) -> Tensor:
    """Return the euclidean norm of every sample, shape ``(N,)``."""
    norms: Tensor = images.flatten(1).norm(dim=1)
    return norms


class BatchNormStatistics:
    r"""Compares the batch that runs through a model with what its batch-norm layers remember of the training data.

    Inside a ``with`` block every forward pass of the model records, for each layer :math:`l`, the statistics of its
    *input* over batch and pixels; :meth:`mismatch` then is :math:`\sum_l w_l (\|\mu_l - \hat\mu_l\|_2 + \|\sigma^2_l -
    \hat\sigma^2_l\|_2)` (Yin et al., CVPR 2020, equation 4).

    Args:
        model: The model, in evaluation mode.
        unbiased: Whether variances are divided by one less than the number of values, as the layers remember them.

    Attributes:
        count: Number of batch-norm layers.
    """

    def __init__(self, model: nn.Module, unbiased: bool = False) -> None:
        self.layers = list(norms(model).values())
        self.count = len(self.layers)
        self.unbiased = unbiased
        self._handles: list[RemovableHandle] = []
        self._seen: dict[nn.Module, Tensor] = {}

    def __enter__(self) -> BatchNormStatistics:
        self._handles = [layer.register_forward_pre_hook(self._record) for layer in self.layers]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._seen.clear()

    def _record(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        (x,) = inputs
        over = [dim for dim in range(x.dim()) if dim != 1]
        values = x.numel() // x.shape[1]
        correction = int(self.unbiased and values > 1)
        self._seen[layer] = torch.stack([x.mean(over), x.var(over, correction=correction)])

    def read(self) -> list[Tensor]:
        """Return the means and variances of the last forward pass, per layer of shape ``(2, channels)``."""
        return [self._seen[layer] for layer in self.layers]

    def remembered(self) -> list[Tensor]:
        """Return the layers' running means and variances, per layer of shape ``(2, channels)``."""
        return [torch.stack([layer.running_mean, layer.running_var]) for layer in self.layers]  # type: ignore[list-item]

    def mismatch(self, weights: Sequence[float] = ()) -> Tensor:
        """Return the weighted mismatch of the last forward pass, a scalar.

        Args:
            weights: Weights of the first layers; all others have 1.
        """
        return statistics_mismatch(self.read(), self.remembered(), weights)


def statistics_mismatch(ours: Sequence[Tensor], theirs: Sequence[Tensor], weights: Sequence[float] = ()) -> Tensor:
    """Return the distance of two lists of batch-norm statistics, summed over layers, means and variances.

    Args:
        ours: Per layer means and variances, shape ``(..., 2, channels)``.
        theirs: Likewise, of a shape that broadcasts.
        weights: Weights of the first layers; all others have 1.

    Returns:
        Shape ``(...)``.
    """
    scaled = [*weights, *[1.0] * (len(ours) - len(weights))]
    terms = [
        weight * (own - their).norm(dim=-1).sum(-1) for weight, own, their in zip(scaled, ours, theirs, strict=False)
    ]
    return torch.stack(terms).sum(0)
