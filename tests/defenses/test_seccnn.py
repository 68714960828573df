from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mibench.attacks.rgap import layers
from mibench.defenses.base import Defense
from mibench.defenses.seccnn import SecCnn, smallest_factor, surplus
from mibench.errors import IncompatibleCellError, UserError
from mibench.targets.cnn import Cnn
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.targets.resnet18 import ResNet18
from mibench.training import Recipe


@pytest.fixture
def context(digits8):
    return SimpleNamespace(spec=digits8.spec)


def lenet(digits8):
    torch.manual_seed(0)
    return LeNet(spec=digits8.spec, channels=4)


def equations(conv, side):
    """The linear system of R-GAP: a row for every output and every entry of the kernel's gradient, ``(rows, side^2)``.

    The gradient is linear in the input for a given derivative by the output, which is drawn at random here.
    """
    torch.manual_seed(1)
    conv = conv.double().requires_grad_(False)
    basis = torch.eye(side**2, dtype=torch.float64).reshape(-1, 1, side, side)
    outputs = nn.functional.conv2d(basis, conv.weight, None, conv.stride, conv.padding)
    slope = torch.randn(outputs.shape[1:], dtype=torch.float64)
    kernels = []
    for one, made in zip(basis, outputs, strict=True):
        kernels.append(
            nn.grad.conv2d_weight(one[None], conv.weight.shape, slope[None], conv.stride, conv.padding).flatten()
        )
        assert made.shape == slope.shape
    return torch.cat([outputs.flatten(1), torch.stack(kernels)], 1).T


def solved(conv, images, factor):
    """Rank and unknowns of the system, and the mean squared error of its least-squares solution, scaled back."""
    side = images.shape[-1] * factor
    system = equations(conv, side)
    large = images.double().repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    found = torch.linalg.lstsq(system, system @ large.flatten(1).T, driver="gelsd").solution.T
    back = nn.functional.avg_pool2d(found.reshape(large.shape), factor)
    return int(torch.linalg.matrix_rank(system)), side**2, float((back - images).square().mean())


def test_the_first_convolution_cannot_be_solved_for_its_input(digits8, context):
    """Measured, at the same kernels: rank 64 of 64 and error 2e-30 without; 148 of 256 and 0.053 with the up-sampling.

    The stub up-samples and lets the convolution answer at every place of the larger map: full rank, error below 1e-12.
    """
    images = digits8.private.train.x[:10]
    rank, unknowns, error = solved(lenet(digits8).stages[0][0], images, 1)
    defense = SecCnn()
    defended = defense.architecture(lenet(digits8), context)
    sample, conv = defended.stages[0][0]
    factor = int(sample.scale_factor)
    with_rank, with_unknowns, with_error = solved(conv, images, factor)
    assert rank == unknowns == 64 and error < 1e-12
    assert with_rank < with_unknowns and with_error > 0.01
    assert with_unknowns - with_rank >= defense.facts()["rank_index"] > 0
    everywhere = nn.Conv2d(1, 4, 5, 1, 2, bias=False)  # the stub: an output for every enlarged pixel
    everywhere.weight = conv.weight
    stub_rank, stub_unknowns, stub_error = solved(everywhere, images, factor)
    assert stub_rank == stub_unknowns and stub_error < 1e-12


def test_an_attacker_who_knows_of_the_up_sampling_solves_it(digits8, context):
    """Measured: rank 64 of 64, error 7e-30."""
    images = digits8.private.train.x[:10].double()
    sample, conv = SecCnn().architecture(lenet(digits8), context).stages[0][0]
    basis = torch.eye(64, dtype=torch.float64).reshape(-1, 1, 8, 8)
    factor = int(sample.scale_factor)
    system = equations(conv, 8 * factor) @ sample(basis).flatten(1).T
    found = torch.linalg.lstsq(system, system @ images.flatten(1).T, driver="gelsd").solution.T
    assert int(torch.linalg.matrix_rank(system)) == 64
    assert float((found.reshape(images.shape) - images).square().mean()) < 1e-12


@pytest.mark.parametrize("target", [Cnn, LeNet, ResNet18])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_sizes_and_weights_stay(target, mode, digits8, context):
    torch.manual_seed(0)
    model = target(spec=digits8.spec)
    x = digits8.private.train.x[:2]
    shapes, count = [one.shape for one in model.blocks(x)], sum(p.numel() for p in model.parameters())
    for factor in (2, 3):
        torch.manual_seed(0)
        defended = SecCnn(factor=factor, mode=mode, position=factor - 1).architecture(
            target(spec=digits8.spec), context
        )
        assert [one.shape for one in defended.blocks(x)] == shapes
        assert sum(p.numel() for p in defended.parameters()) == count
        assert sum(isinstance(one, nn.Upsample) for one in defended.modules()) == 1
        old, new = ([one for one in net.modules() if isinstance(one, nn.Conv2d)] for net in (model, defended))
        strides = [after.stride[0] // before.stride[0] for before, after in zip(old, new, strict=True)]
        assert strides == [factor if number == factor - 2 else 1 for number in range(len(old))]


def test_before_a_kernel_of_three_every_factor_of_copies_is_the_same_function_and_of_five_it_is_not(digits8, context):
    x = digits8.private.train.x[:4]

    def answers(target, factor, mode="nearest"):
        torch.manual_seed(0)
        model = SecCnn(factor=factor, mode=mode).architecture(target(spec=digits8.spec), context).eval()
        return model.predict_proba(x)

    assert torch.allclose(answers(Cnn, 2), answers(Cnn, 4), atol=1e-6)
    assert not torch.allclose(answers(Cnn, 1), answers(Cnn, 2), atol=1e-4)
    assert not torch.allclose(answers(Cnn, 2, "bilinear"), answers(Cnn, 4, "bilinear"), atol=1e-4)
    assert not torch.allclose(answers(LeNet, 2), answers(LeNet, 4), atol=1e-4)


def test_the_least_factor_with_a_surplus_is_taken():
    """16 outputs per pixel and 144 weights against 64 unknowns: 5 is the first factor with 25 x 64 > 1024 + 144."""
    conv = nn.Conv2d(1, 16, 3, padding=1)
    assert smallest_factor(conv, (1, 8, 8)) == 5
    assert [surplus(conv, (1, 8, 8), factor) for factor in (1, 4, 5)] == [64 - 1168, 1024 - 1168, 1600 - 1168]
    with pytest.raises(UserError, match=r"defense\.factor"):
        smallest_factor(nn.Conv2d(1, 512, 3, padding=1), (1, 8, 8))


def test_rgap_is_no_longer_defined(digits8, context):
    assert layers(lenet(digits8), digits8.spec.shape)
    with pytest.raises(IncompatibleCellError, match="R-GAP"):
        layers(SecCnn().architecture(lenet(digits8), context), digits8.spec.shape)


def test_factor_one_is_the_target_itself_and_another_learns_too(train_under, accuracy_of):
    """Measured: accuracy 0.991 behind the defense."""

    def trained(defense, epochs):
        return train_under(defense, Cnn, Recipe(epochs=epochs, lr=5e-3), width=8)

    assert torch.equal(trained(SecCnn(factor=1), 1).head.weight, trained(Defense(), 1).head.weight)
    assert accuracy_of(trained(SecCnn(), 5)) > 0.9


def test_a_target_without_convolutions_is_refused(digits8, context):
    with pytest.raises(UserError, match=r"defense\.position"):
        SecCnn().architecture(Mlp(spec=digits8.spec), context)


@pytest.mark.parametrize(("option", "value"), [("factor", 0), ("mode", "cubic"), ("position", 0)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(UserError, match=rf"defense\.{option}"):
        SecCnn(**{option: value})
