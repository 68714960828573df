"""ResNet-20, the small ResNet for 32x32 images (He et al., Deep Residual Learning, CVPR 2016, section 4.2).

A 3x3 convolution and three groups of three basic blocks with 16, 32 and 64 channels, the second and third group begun
with stride 2, spatial mean, linear head: 0.27 million weights. ``width_factor`` multiplies the channels: 4 is the
ResNet20-4 on which gradient inversion is reported (Geiping et al., Inverting Gradients, NeurIPS 2020). As there, and
unlike He et al.'s own runs on CIFAR (zero-padded identities), a shortcut that changes shape is a 1x1 convolution.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.nn.basic_block import BasicBlock
from mibench.options import Count
from mibench.targets.base import Target, centred


class ResNet20(Target):
    """ResNet-20, untrained.

    Args:
        spec: Facts of the input; images.
        width_factor: Channels of every layer over those of the paper.
    """

    card = TargetCard(
        name="resnet20", title="ResNet-20", modalities=("image",), bib="resnet", year=2016, family="residual"
    )

    def __init__(self, *, spec: InputSpec, width_factor: Count = 1) -> None:
        super().__init__(spec=spec)
        width = 16 * width_factor
        stem = nn.Conv2d(spec.shape[0], width, 3, padding=1, bias=False)
        self.normalise = centred(spec)
        self.stages = nn.ModuleList(
            [
                nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU(), *_group(width, width, 1)),
                nn.Sequential(*_group(width, 2 * width, 2)),
                nn.Sequential(*_group(2 * width, 4 * width, 2)),
            ]
        )
        self.head = nn.Linear(4 * width, spec.classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def pool(self, last: Tensor) -> Tensor:
        """Return the spatial mean of the last block."""
        return last.mean((2, 3))


def _group(before: int, after: int, stride: int) -> Iterator[nn.Module]:
    """Yield three basic blocks, the first of which changes channels and size."""
    for index in range(3):
        shortcut = None
        if index == 0 and stride > 1:
            shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        block = BasicBlock(before if index == 0 else after, after, stride if index == 0 else 1, shortcut)
        block.relu.inplace = False
        yield block
