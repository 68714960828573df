"""ResNet-20 is the published network: its depth, its size, its maps; so is ResNet-18 at 32 pixels."""

import pytest
import torch
from torch import nn

from mibench.data import InputSpec
from mibench.targets.resnet18 import ResNet18
from mibench.targets.resnet20 import ResNet20

SPEC = InputSpec("image", (3, 32, 32), 10)


def size(model):
    return sum(p.numel() for p in model.parameters())


def test_twenty_layers_lie_on_the_main_path():
    model = ResNet20(spec=SPEC)
    main = [one for one in model.modules() if isinstance(one, nn.Conv2d) and one.kernel_size == (3, 3)]
    assert len(main) + 1 == 20
    shapes = [tuple(block.shape[1:]) for block in model.eval().blocks(torch.rand(1, 3, 32, 32))]
    assert shapes == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


def test_it_has_the_papers_0_27_million_weights():
    """He et al.'s table 6 says 0.27 M; 2,752 of these are the two convolutions on shortcuts."""
    model = ResNet20(spec=SPEC)
    shortcuts = [one.downsample for one in model.modules() if getattr(one, "downsample", None) is not None]
    assert size(model) == 272_474 and sum(map(size, shortcuts)) == 16 * 32 + 64 + 32 * 64 + 128 == 2_752


@pytest.mark.parametrize("factor", [4, 10])
def test_the_factor_widens_every_layer(factor):
    usual, wide = ResNet20(spec=SPEC), ResNet20(spec=SPEC, width_factor=factor)
    for one, other in zip(usual.modules(), wide.modules(), strict=True):
        if isinstance(one, nn.Conv2d):
            assert other.out_channels == factor * one.out_channels
    assert wide.head.in_features == factor * 64


def test_a_block_that_changes_nothing_begins_with_an_identity():
    block = ResNet20(spec=SPEC).eval().stages[1][1]
    nn.init.zeros_(block.conv2.weight)
    x = torch.rand(1, 32, 4, 4)
    assert torch.equal(block(x), x)


def test_resnet18_has_the_stem_for_32_pixels_and_its_11_17_million_weights():
    model = ResNet18(spec=SPEC)
    assert size(model) == 11_173_962
    assert not [one for one in model.modules() if isinstance(one, nn.MaxPool2d)]
    assert model.stages[0][0].kernel_size == (3, 3) and model.stages[0][0].stride == (1, 1)
    shapes = [tuple(block.shape[1:]) for block in model.eval().blocks(torch.rand(1, 3, 32, 32))]
    assert shapes == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
