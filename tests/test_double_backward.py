import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode

from mibench.access.double_backward import lean_convolutions


def network():
    """Stride, dilation, no bias, no padding, and a tail that pools."""
    torch.manual_seed(0)
    convolutions = [
        nn.Conv2d(2, 3, 3, stride=2, padding=1),
        nn.Conv2d(3, 4, 3, padding=(2, 1), dilation=(2, 1), bias=False),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 3, (2, 3)),
    ]
    layers = [layer for one in convolutions for layer in (one, nn.Softplus())]
    return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(5)).double()


def matched(model, x, y, sent):
    """The derivative by the input of a distance of gradients, and the gradients."""
    loss = cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    apart = sum(((g - s) ** 2).sum() for g, s in zip(gradients, sent, strict=True))
    return torch.autograd.grad(apart, x)[0], gradients


@pytest.fixture
def case():
    model, y = network(), torch.tensor([1, 4])
    x = torch.rand(2, 2, 9, 8, dtype=torch.double, requires_grad=True)
    model(x)
    sent = [torch.randn_like(one) for one in model.parameters()]
    return model, x, y, sent


def test_both_derivatives_are_those_of_torch(case):
    expected = matched(*case)
    with lean_convolutions(least=0):
        got = matched(*case)
    torch.testing.assert_close(got[0], expected[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(got[1], expected[1], rtol=1e-12, atol=1e-12)


def test_the_derivative_is_that_of_differences(case):
    model, x, y, sent = case
    with lean_convolutions(least=0):
        slope, _ = matched(*case)

    def apart(x):
        gradients = torch.autograd.grad(cross_entropy(model(x), y), list(model.parameters()))
        return sum(((g - s) ** 2).sum() for g, s in zip(gradients, sent, strict=True))

    move, size = torch.randn_like(x), 1e-4  # much smaller ones leave the rounding
    difference = (apart((x + size * move).detach()) - apart((x - size * move).detach())) / (2 * size)
    torch.testing.assert_close((slope * move).sum(), difference, rtol=1e-6, atol=1e-8)


class Convolutions(TorchDispatchMode):
    """Counts convolutions, each of a backward pass for itself."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function is torch.ops.aten.convolution.default:
            self.count += 1
        elif function is torch.ops.aten.convolution_backward.default:
            self.count += sum(args[-1][:2])
        return function(*args, **(kwargs or {}))


def test_it_does_seven_convolutions_where_torch_does_more(case):
    with Convolutions() as plain:
        matched(*case)
    with Convolutions() as lean, lean_convolutions(least=0):
        matched(*case)
    layers = 4
    assert lean.count <= 7 * layers < plain.count


def test_what_it_leaves_out_is_said_and_not_zero(case):
    model, x, y, sent = case
    with lean_convolutions(least=0):
        loss = cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True)
    apart = sum(((g - s) ** 2).sum() for g, s in zip(gradients, sent, strict=True))
    with pytest.raises(RuntimeError, match="appears to not have been used"):
        torch.autograd.grad(apart, model[0].weight)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(2, 4, 3, groups=2),
        nn.Conv2d(2, 4, 3, padding="same"),
        nn.Conv2d(2, 4, 3, padding_mode="circular", padding=1),
    ],
)
def test_other_convolutions_are_left_as_they_are(layer):
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    expected = layer(x)
    with lean_convolutions(least=0):
        assert torch.equal(layer(x), expected)


def test_weights_that_are_computed_keep_their_second_derivative():
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 4, 3))
    x = torch.rand(1, 2, 6, 6, requires_grad=True)
    with lean_convolutions(least=0):
        loss = layer(x).square().sum()
    gradients = torch.autograd.grad(loss, list(layer.parameters()), create_graph=True)
    second = torch.autograd.grad(
        sum(one.square().sum() for one in gradients), list(layer.parameters()), allow_unused=True
    )
    assert all(one is not None and one.abs().sum() > 0 for one in second[1:])
