"""The sigmoid LeNet on which gradient inversion is demonstrated (Zhu et al., Deep Leakage from Gradients, 2019).

Three 5x5 convolutions with 12 channels, strides 2, 2 and 1, padding 2, a sigmoid after each, and one linear layer;
weights and biases drawn uniformly from [-0.5, 0.5], as in the authors' ``main.py`` (mit-han-lab/dlg, MIT).
"""

from __future__ import annotations

import math

from torch import nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.options import Count, Positive
from mibench.targets.base import Target


class LeNet(Target):
    """The DLG paper's LeNet; takes images in [0, 1] as they are.

    Args:
        spec: Facts of the input; images.
        channels: Channels of every convolution.
        init: Half-width of the uniform initialisation; None keeps torch's own.
    """

    card = TargetCard(
        name="lenet",
        title="LeNet of the DLG paper",
        modalities=("image",),
        bib="dlg",
        year=2019,
        family="convolutional",
    )

    def __init__(self, *, spec: InputSpec, channels: Count = 12, init: Positive | None = 0.5) -> None:
        super().__init__(spec=spec)
        inputs, height, width = spec.shape
        self.normalise = nn.Identity()
        strides = (2, 2, 1)
        widths = [inputs, channels, channels, channels]
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, after, 5, stride, 2), nn.Sigmoid())
            for before, after, stride in zip(widths, widths[1:], strides, strict=False)
        )
        self.head = nn.Linear(channels * math.ceil(height / 4) * math.ceil(width / 4), spec.classes)
        if init is not None:
            for parameter in self.parameters():
                nn.init.uniform_(parameter, -init, init)
