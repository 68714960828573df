"""A small convolutional network that an attacker trains to answer as the target does."""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from mibench.data import InputSpec


class Student(nn.Sequential):
    """Convolutions that halve the image down to 4 pixels per side, then a linear layer.

    Args:
        spec: Facts of the input, images.
        width: Channels of the first convolution; each next one has twice as many, at most eight times.
    """

    def __init__(self, spec: InputSpec, width: int) -> None:
        channels, height, breadth = spec.shape
        halvings = max(1, math.ceil(math.log2(max(height, breadth) / 4)))
        widths = [channels, *(width * min(2**i, 8) for i in range(halvings))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        super().__init__(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], spec.classes))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``(N, classes)`` for images in [0, 1]."""
        logits: Tensor = super().forward(2 * x - 1)  # type: ignore[no-untyped-call]
        return logits
