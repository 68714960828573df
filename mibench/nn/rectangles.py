"""Rectangles of whole pixels in images."""

from __future__ import annotations

import torch
from torch import Tensor


def rectangles(heights: Tensor, widths: Tensor, places: Tensor, size: tuple[int, int]) -> Tensor:
    """Return which pixels of images lie in a rectangle of each, shape ``(N, 1, H, W)``.

    Args:
        heights: Whole pixels, shape ``(N,)``.
        widths: Whole pixels, shape ``(N,)``.
        places: Where they stand vertically and horizontally, uniform in [0, 1), shape ``(2, N)``.
        size: Height and width of the images.
    """
    rows, columns = map(interval, (heights, widths), places, size)
    return (rows[:, :, None] & columns[:, None, :])[:, None]


def interval(length: Tensor, place: Tensor, size: int) -> Tensor:
    """Return which of ``size`` pixels lie in an interval of each ``length`` at a ``place`` in [0, 1): ``(N, size)``."""
    start = (place * (size - length + 1)).floor()
    pixels = torch.arange(size, device=length.device)
    return (pixels >= start[:, None]) & (pixels < (start + length)[:, None])
