"""Image processing between the steps of an attack: take the noise away, keep or raise the edges."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def nl_means(images: Tensor, strength: float = 0.1, search: int = 3, patch: int = 1) -> Tensor:
    r"""Return every pixel as the mean of pixels around it whose surroundings look like its own.

    Non-local means (Buades et al., CVPR 2005): pixel :math:`j` counts for pixel :math:`i` with the weight
    :math:`\exp(-d_{ij} / h^2)`, where :math:`d_{ij}` is the mean squared difference of the patches around both.

    Args:
        images: Shape ``(N, C, H, W)``.
        strength: The width :math:`h`, above 0: about the noise's standard deviation.
        search: Most pixels from :math:`i` to :math:`j`, along either axis.
        patch: Pixels from the middle of a patch to its border.
    """
    height, width = images.shape[-2:]
    around = functional.pad(images, [search] * 4, mode="replicate")
    total, weights = torch.zeros_like(images), torch.zeros_like(images[:, :1])
    for down in range(2 * search + 1):
        for right in range(2 * search + 1):
            other = around[..., down : down + height, right : right + width]
            apart = (other - images).square().mean(1, keepdim=True)
            apart = functional.avg_pool2d(functional.pad(apart, [patch] * 4, mode="replicate"), 2 * patch + 1, 1)
            weight = (-apart / strength**2).exp()
            total, weights = total + weight * other, weights + weight
    return total / weights


def sharpen(images: Tensor, amount: float = 0.5) -> Tensor:
    """Return images with what a 3x3 blur takes away added once more, clipped to [0, 1] (unsharp masking).

    Args:
        images: Shape ``(N, C, H, W)`` in [0, 1].
        amount: How much of it is added; 0 changes nothing.
    """
    blurred = functional.avg_pool2d(functional.pad(images, [1] * 4, mode="replicate"), 3, 1)
    return (images + amount * (images - blurred)).clamp(0, 1)
