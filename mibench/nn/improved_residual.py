"""The improved residual (IR) network of face recognition, of which IR-50 and IR-152 differ in depth alone.

J. Deng, J. Guo, N. Xue and S. Zafeiriou, ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019: a
stem that keeps the resolution, four stages of pre-normalised units that each halve it, and an embedding of 512 numbers
that batch norm, dropout and one linear layer make of the last map.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

EMBEDDING = 512
WIDTHS = (64, 64, 128, 256, 512)


class Unit(nn.Module):
    """One residual unit: batch norm, convolution, PReLU, convolution with the stride, batch norm.

    The shortcut takes every ``stride``-th pixel where the channels stay the same, and is a normalised 1x1 convolution
    where they change; nothing follows the sum.
    """

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(before),
            nn.Conv2d(before, after, 3, 1, 1, bias=False),
            nn.PReLU(after),
            nn.Conv2d(after, after, 3, stride, 1, bias=False),
            nn.BatchNorm2d(after),
        )
        self.shortcut: nn.Module = nn.MaxPool2d(1, stride)
        if before != after:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of body and shortcut."""
        result: Tensor = self.body(x) + self.shortcut(x)
        return result


def ir_stages(channels: int, depths: Sequence[int]) -> nn.ModuleList:
    """Return the four stages with ``depths`` units each, the stem before the first; Xavier's uniform weights."""
    stem = nn.Sequential(nn.Conv2d(channels, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
    stages = nn.ModuleList(
        nn.Sequential(Unit(before, after, 2), *(Unit(after, after, 1) for _ in range(depth - 1)))
        for (before, after), depth in zip(pairwise(WIDTHS), depths, strict=True)
    )
    stages[0] = nn.Sequential(stem, *stages[0].children())
    for module in stages.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.xavier_uniform_(module.weight)
    return stages


def ir_embedding(height: int, width: int) -> nn.Sequential:
    """Return what makes the embedding ``(N, 512)`` of the last map, for inputs of ``height`` x ``width`` pixels."""
    return nn.Sequential(
        nn.BatchNorm2d(WIDTHS[-1]),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(WIDTHS[-1] * (height // 16) * (width // 16), EMBEDDING),
        nn.BatchNorm1d(EMBEDDING),
    )
