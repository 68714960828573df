"""The basic block of ResNets (He et al., Deep Residual Learning, CVPR 2016), fit for every transform of torch."""

from __future__ import annotations

from torch import Tensor
from torchvision.models import resnet


class BasicBlock(resnet.BasicBlock):  # type: ignore[misc]
    """torchvision's block without the in-place addition, which per-example gradients forbid."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the block."""
        identity = x if self.downsample is None else self.downsample(x)
        inner = self.relu(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(inner)) + identity)
        return result
