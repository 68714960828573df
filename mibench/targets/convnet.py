"""The ConvNet on which gradient inversion is shown (Geiping et al., Inverting Gradients, NeurIPS 2020).

Eight 3x3 convolutions with w, 2w, 2w and five times 4w channels, each with bias, batch norm and ReLU; 3x3 max pooling
with stride 3 after the sixth and the eighth, and a linear head on the flat feature; w = 64. For 32x32 colour images and
10 classes these are 2,904,970 weights. From the authors' code (JonasGeiping/invertinggradients, MIT), whose list of
layers gives the seventh convolution twice under one name, so that one of the two is all that exists.

Deviations: inputs are mapped to [-1, 1] rather than standardised by CIFAR's statistics, the head fits any size of
image, and where a map has fewer than 3 pixels per side it is not pooled.
"""

from __future__ import annotations

from itertools import pairwise

from torch import nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.options import Count
from mibench.targets.base import Target, centred

#: Channels of the convolutions in units of the width, and after how many of them the map is pooled.
WIDTHS = (1, 2, 2, 4, 4, 4, 4, 4)
POOLED = (6, 8)


class ConvNet(Target):
    """The Inverting Gradients paper's ConvNet, untrained, with one stage per convolution.

    Args:
        spec: Facts of the input; images.
        width: Channels of the first convolution.
    """

    card = TargetCard(
        name="convnet",
        title="ConvNet of Inverting Gradients",
        modalities=("image",),
        bib="inverting_gradients",
        year=2020,
        code="https://github.com/JonasGeiping/invertinggradients",
        fidelity="official",
        family="convolutional",
    )

    def __init__(self, *, spec: InputSpec, width: Count = 64) -> None:
        super().__init__(spec=spec)
        inputs, height, breadth = spec.shape
        self.normalise = centred(spec)
        self.stages = nn.ModuleList()
        for number, (before, after) in enumerate(pairwise([inputs, *(width * factor for factor in WIDTHS)]), start=1):
            layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            if number in POOLED and min(height, breadth) >= 3:
                layers.append(nn.MaxPool2d(3))
                height, breadth = height // 3, breadth // 3
            self.stages.append(nn.Sequential(*layers))
        self.head = nn.Linear(width * WIDTHS[-1] * height * breadth, spec.classes)
