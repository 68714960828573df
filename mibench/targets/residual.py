"""A small residual network with average pooling: the convolutional evaluation model, and a target like any other."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.options import Count
from mibench.targets.base import Target, centred


class _Block(nn.Module):
    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.GroupNorm(4, after),
            nn.SiLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.GroupNorm(4, after),
        )
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.silu(self.body(x) + self.shortcut(x))


class Residual(Target):
    """Three residual blocks with group norm.

    Args:
        spec: Facts of the input; images.
        width: Channels of the first block; doubled by each following one.
    """

    card = TargetCard(name="residual", title="Small residual network", modalities=("image", "audio"), family="residual")

    def __init__(self, *, spec: InputSpec, width: Count = 16) -> None:
        super().__init__(spec=spec)
        self.normalise = centred(spec)
        widths = [width, width, 2 * width, 4 * width]
        stem = nn.Sequential(nn.Conv2d(spec.shape[0], width, 3, padding=1), nn.SiLU())
        self.stages = nn.ModuleList(
            [
                nn.Sequential(stem, _Block(widths[0], widths[1], 1)),
                _Block(widths[1], widths[2], 2),
                _Block(widths[2], widths[3], 2),
            ]
        )
        self.head = nn.Linear(widths[-1], spec.classes)

    def pool(self, last: Tensor) -> Tensor:
        """Return the spatial mean of the last block."""
        return last.mean((2, 3))
