"""FaceNet64 and IR152 are the published networks: sizes of every part at 64 pixels, shortcut, embedding, head."""

import pytest
import torch
from torch import nn

from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.nn.improved_residual import Unit
from mibench.targets.facenet64 import FaceNet64
from mibench.targets.ir152 import Ir152

SPEC = InputSpec("image", (3, 64, 64), 10)


@pytest.mark.parametrize(("target", "depths"), [(FaceNet64, [3, 4, 14, 3]), (Ir152, [3, 8, 36, 3])])
def test_the_depths_are_those_of_the_names(target, depths):
    stages = target(spec=SPEC).stages
    assert [sum(isinstance(module, Unit) for module in stage.modules()) for stage in stages] == depths


def test_facenet64_has_the_shapes_of_the_literature():
    model = FaceNet64(spec=SPEC).eval()
    blocks = model.blocks(torch.rand(2, 3, 64, 64))
    assert [tuple(block.shape[1:]) for block in blocks] == [
        (64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4),
    ]  # fmt: skip
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    assert [(one.in_features, one.out_features) for one in linear] == [(512 * 4 * 4, 512), (512, 10)]
    assert sum(p.numel() for p in model.stages.parameters()) == by_hand(FaceNet64.depths)


def by_hand(depths):
    """Weights of an IR backbone, counted from its description."""
    total, before = 3 * 64 * 9 + 2 * 64 + 64, 64
    for after, depth in zip((64, 128, 256, 512), depths, strict=True):
        for index in range(depth):
            inner = before if index == 0 else after
            total += 2 * inner + 9 * inner * after + after + 9 * after * after + 2 * after
            total += (inner * after + 2 * after) if inner != after else 0
        before = after
    return total


def test_the_plain_shortcut_takes_every_second_pixel():
    unit = Unit(4, 4, 2).eval()
    nn.init.zeros_(unit.body[-1].weight)
    x = torch.rand(1, 4, 8, 8)
    assert torch.equal(unit(x), x[:, :, ::2, ::2])


@pytest.mark.parametrize("side", [40, 24])
def test_other_sizes_are_refused(side):
    with pytest.raises(UserError, match=f"multiples of 16, but these have {side}x{side} pixels"):
        FaceNet64(spec=InputSpec("image", (3, side, side), 2))
