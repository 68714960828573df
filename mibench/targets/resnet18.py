"""torchvision's ResNet-18 with the stem adapted to the input size (He et al., Deep Residual Learning, CVPR 2016)."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.models.resnet import ResNet

from mibench.card import TargetCard
from mibench.data import InputSpec
from mibench.nn.basic_block import BasicBlock
from mibench.targets.base import Target, centred


class ResNet18(Target):
    """ResNet-18, untrained.

    Below 64 pixels the 7x7 stem with stride 2 and pooling becomes a 3x3 stem with stride 1, as for CIFAR.

    Args:
        spec: Facts of the input; images.
    """

    card = TargetCard(
        name="resnet18", title="ResNet-18", modalities=("image",), bib="resnet", year=2016, family="residual"
    )

    def __init__(self, *, spec: InputSpec) -> None:
        super().__init__(spec=spec)
        net = ResNet(BasicBlock, [2, 2, 2, 2], num_classes=spec.classes)
        small = min(spec.shape[1:]) < 64
        if small:
            stem: nn.Module = nn.Conv2d(spec.shape[0], 64, 3, padding=1, bias=False)
        else:
            stem = nn.Conv2d(spec.shape[0], 64, 7, 2, 3, bias=False)
        first = [stem, net.bn1, nn.ReLU()] + ([] if small else [net.maxpool])
        for module in net.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
        self.normalise = centred(spec)
        self.stages = nn.ModuleList([nn.Sequential(*first, net.layer1), net.layer2, net.layer3, net.layer4])
        self.head = net.fc

    def pool(self, last: Tensor) -> Tensor:
        """Return the spatial mean of the last block."""
        return last.mean((2, 3))
