"""torchvision's VGG16-BN as the low-resolution model-inversion literature uses it.

The five convolutional blocks (Simonyan and Zisserman, ICLR 2015), pooled only while the map is larger than one pixel,
then a batch-normalised feature and a linear head, as in the VGG16 target of the GMI line of work.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.targets.base import Target, centred


class Vgg16(Target):
    """VGG16 with batch norm, untrained.

    Args:
        spec: Facts of the input; images.
    """

    card = TargetCard(name="vgg16", title="VGG16-BN", modalities=("image",), bib="vgg", year=2015, family="vgg")

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__(spec=spec)
        from torchvision.models import vgg16_bn

        layers = list(vgg16_bn(weights=None).features)
        layers[0] = nn.Conv2d(spec.shape[0], 64, 3, padding=1)
        blocks: list[list[nn.Module]] = [[]]
        height, width = spec.shape[1:]
        for layer in layers:
            if isinstance(layer, nn.MaxPool2d):
                if min(height, width) > 1:
                    blocks[-1].append(layer)
                    height, width = math.floor(height / 2), math.floor(width / 2)
                blocks.append([])
            else:
                blocks[-1].append(nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
        self.normalise = centred(spec)
        self.stages = nn.ModuleList(nn.Sequential(*block) for block in blocks if block)
        self.bn = nn.BatchNorm1d(512 * height * width)
        self.head = nn.Linear(512 * height * width, spec.classes)

    def pool(self, last: Tensor) -> Tensor:
        """Return the batch-normalised flat feature."""
        feature: Tensor = self.bn(last.flatten(1))
        return feature
