"""A small convolutional network: three blocks of convolution, batch norm and pooling, and a linear head."""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.options import Count
from mibench.targets.base import Target, centred


class Cnn(Target):
    """Three convolutional blocks.

    Args:
        spec: Facts of the input; images of at least 8 pixels per side.
        width: Channels of the first block; doubled by each following one.
    """

    card = TargetCard(name="cnn", title="Small CNN", modalities=("image", "audio"), family="convolutional")

    def __init__(self, *, spec: InputSpec, width: Count = 16) -> None:
        super().__init__(spec=spec)
        channels, height, breadth = spec.shape
        if min(height, breadth) < 8:
            raise UserError(f"target=cnn needs images of at least 8x8 pixels, but these have {breadth}x{height}.")
        self.normalise = centred(spec)
        widths = [channels, width, 2 * width, 4 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2))
            for before, after in pairwise(widths)
        )
        self.head = nn.Linear(widths[-1] * (height // 8) * (breadth // 8), spec.classes)
