"""ConvNet is the published network: its layers, its size, its maps."""

import pytest
import torch
from torch import nn

from mibench.data import InputSpec
from mibench.targets.convnet import ConvNet


def size(spec, **options):
    return sum(p.numel() for p in ConvNet(spec=spec, **options).parameters())


def by_hand(widths, head, classes):
    """Weights of 3x3 convolutions with bias and batch norm, and of a linear head."""
    body = sum(9 * before * after + after + 2 * after for before, after in zip([3, *widths], widths, strict=False))
    return body + head * classes + classes


def test_convnet_has_the_published_layers():
    model = ConvNet(spec=InputSpec("image", (3, 32, 32), 10))
    widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert widths == [64, 128, 128, 256, 256, 256, 256, 256]
    assert model.head.in_features == 36 * 64
    kinds = [[type(layer).__name__ for layer in stage] for stage in model.stages]
    plain = ["Conv2d", "BatchNorm2d", "ReLU"]
    assert kinds == [plain] * 5 + [[*plain, "MaxPool2d"], plain, [*plain, "MaxPool2d"]]
    shapes = [tuple(block.shape[1:]) for block in model.eval().blocks(torch.rand(1, 3, 32, 32))]
    assert shapes[4] == (256, 32, 32) and shapes[5] == (256, 10, 10) and shapes[7] == (256, 3, 3)


def test_convnet_has_2_904_970_weights():
    assert size(InputSpec("image", (3, 32, 32), 10)) == 2_904_970
    assert by_hand([64, 128, 128, 256, 256, 256, 256, 256], 36 * 64, 10) == 2_904_970
    assert size(InputSpec("image", (3, 32, 32), 100), width=8) == by_hand([8, 16, 16, *[32] * 5], 36 * 8, 100)


@pytest.mark.parametrize(("side", "features"), [(64, 7 * 7), (16, 1), (8, 2 * 2), (2, 2 * 2)])
def test_other_sizes_are_pooled_as_far_as_they_go(side, features):
    model = ConvNet(spec=InputSpec("image", (1, side, side), 2), width=4).eval()
    assert model.head.in_features == 16 * features
    assert model(torch.rand(2, 1, side, side)).shape == (2, 2)
