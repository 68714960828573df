import logging

import pytest
import torch
from torch import nn

from mibench.attacks import rgap
from mibench.attacks.rgap import Rgap, head_solutions, layers, recursion
from mibench.data import Examples
from mibench.errors import IncompatibleCellError
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.model import Classifier
from mibench.targets.cnn import Cnn
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal


class Chain(Classifier):
    """A chain of the given layers."""

    def __init__(self, stages, features, classes, bias):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList(stages)
        self.head = nn.Linear(features, classes, bias=bias)


def perceptron(classes=2):
    """The card's chain of linear layers: 16-12-8 without biases, LeakyReLU."""
    widths = ((16, 12), (12, 8))
    stages = [nn.Sequential(nn.Linear(a, b, bias=False), nn.LeakyReLU(0.2)) for a, b in widths]
    return Chain([nn.Flatten(), *stages], 8, classes, bias=False)


@pytest.fixture
def observe(client_view):
    """Makes a view of one message per example: ``observe(model, x, y)``."""
    return lambda model, x, y, **more: client_view(model, Examples(x, y), **more)


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), 1)
    return Rgap(**options)(view, knowledge or Knowledge(), goal, seed=0).reconstruction


def lenet(split, count=4):
    torch.manual_seed(0)
    secret = split.private.test[torch.arange(count)]
    return LeNet(spec=split.spec), secret.x, secret.y


def test_images_come_back_exactly_from_lenet_with_their_label(digits8, observe):
    model, x, y = lenet(digits8)
    result = attack(observe(model, x, y))
    assert float(squared_errors(result.values, x).max()) < 1e-6
    assert torch.equal(result.labels, y)


def test_without_the_gradients_equations_they_do_not(digits8, monkeypatch, observe):
    """A stub that undoes every layer by its weights alone."""

    def weights_alone(module, shape, z, k, gradient, rcond):
        unit = torch.eye(shape.numel(), dtype=z.dtype).reshape(-1, *shape)
        matrix = nn.functional.conv2d(unit, module.weight, None, module.stride, module.padding).flatten(1).T
        found = torch.linalg.lstsq(matrix, (z - module.bias[:, None, None]).flatten()[:, None], driver="gelsy")
        return found.solution.reshape(shape), int(found.rank)

    model, x, y = lenet(digits8)
    monkeypatch.setattr(rgap, "convolution_input", weights_alone)
    assert float(squared_errors(attack(observe(model, x, y)).values, x).min()) > 1e-2


@pytest.mark.parametrize("seed", range(8))
def test_a_head_without_bias_is_solved_to_machine_precision(seed, observe):
    """The card's case: two classes are the logistic loss, of whose solutions one must be the input."""
    torch.manual_seed(seed)
    model, x, y = perceptron().double(), torch.rand(1, 1, 4, 4).double(), torch.tensor([seed % 2])
    sent = observe(model, x, y).messages[0]
    chain, weight = layers(model, (1, 4, 4)), model.head.weight.detach()
    starts = head_solutions(weight, sent, int(y))
    found = [recursion(chain, weight, sent, start, 1e-10)[0].reshape(x.shape) for start in starts]
    assert min(float((one - x).abs().max()) for one in found) < 1e-8
    if len(found) == 2:  # the other branch is another input
        assert max(float((one - x).abs().max()) for one in found) > 1e-3


@pytest.mark.parametrize("margin", [0.4, 3.0])
def test_a_head_of_two_classes_without_bias_has_two_solutions_of_one_gradient(margin):
    """The input is the shorter one where the model is unsure, and the longer one where it is sure."""
    weight = torch.tensor([[1.0, -0.5], [0.0, 0.5]], dtype=torch.float64)
    truth = margin * torch.tensor([1.0, 0.0], dtype=torch.float64)

    def gradient(features):
        k = (weight @ features).softmax(0) - torch.tensor([1.0, 0.0])
        return torch.outer(k, features)

    found = sorted(
        (start.features for start in head_solutions(weight, {"head.weight": gradient(truth)}, 0)), key=torch.norm
    )
    assert len(found) == 2 and float((found[0] - found[1]).norm()) > 0.3
    for features in found:
        torch.testing.assert_close(gradient(features), gradient(truth), rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(found[int(margin > 1)], truth, rtol=1e-8, atol=1e-10)


def test_the_nearest_gradient_tells_the_label_and_the_branch(observe):
    right = 0
    for seed in range(20):
        torch.manual_seed(seed)
        model, x, y = perceptron(2 + seed % 3), torch.rand(1, 1, 4, 4), torch.tensor([seed % 2])
        result = attack(observe(model, x, y))
        right += int(float(squared_errors(result.values, x)) < 1e-6 and int(result.labels) == int(y))
    assert right >= 18


def convolution(stride):
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(1, 1, 2, stride, bias=False), nn.LeakyReLU(0.2))
    return Chain([stage], (8 // stride) ** 2, 5, bias=True)


def test_what_nothing_determines_is_said(digits8, caplog, observe):
    x, y = digits8.private.test.x[:2], digits8.private.test.y[:2]
    with caplog.at_level(logging.WARNING, logger="mibench"):
        result = attack(observe(convolution(4), x, y))
    # 4 outputs and 4 weights make 8 equations, one of which follows from the others: <k, z> = <dW, W>
    assert "up to 57 of the 64 inputs of stages.0.0" in caplog.text
    assert float(squared_errors(result.values, x).min()) > 1e-2


def test_nothing_is_said_where_all_is_determined(digits8, caplog, observe):
    model, x, y = lenet(digits8, 1)
    with caplog.at_level(logging.WARNING, logger="mibench"):
        attack(observe(model, x, y))
    assert "undetermined" not in caplog.text


def test_padding_dilation_and_rectangles_are_solved(observe):
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 8, (3, 2), (1, 2), (2, 1), (2, 1)), nn.LeakyReLU(0.3))
    second = nn.Sequential(nn.Conv2d(8, 12, 3, 1, 0))
    x = torch.rand(2, 3, 6, 9)
    features = second(first(x)).flatten(1).shape[1]
    model, y = Chain([first, second], features, 4, bias=True), torch.tensor([3, 1])
    result = attack(observe(model, x, y))
    assert float(squared_errors(result.values, x).max()) < 1e-6


def test_noise_on_the_gradient_ends_it(digits8, observe):
    model, x, y = lenet(digits8, 2)
    draws = torch.Generator().manual_seed(0)
    noisy = observe(
        model,
        x,
        y,
        change=lambda message: {
            name: value + 0.03 * torch.randn(value.shape, generator=draws) for name, value in message.items()
        },
    )
    result = attack(noisy)
    assert float(squared_errors(result.values, x).min()) > 1e-2


def test_a_message_that_is_not_finite_is_a_missing_result(digits8, observe):
    model, x, y = lenet(digits8, 2)
    view = observe(model, x, y)
    view.messages[0]["head.bias"][0] = torch.nan
    result = attack(view)
    assert result.valid.tolist() == [False, True]
    assert float(squared_errors(result.values, x)[1]) < 1e-6


@pytest.mark.parametrize("target", [Mlp, Cnn])
def test_a_target_of_other_layers_is_refused(digits8, target, observe):
    view = observe(target(spec=digits8.spec), digits8.private.test.x[:1], digits8.private.test.y[:1])
    with pytest.raises(IncompatibleCellError, match="set target=lenet"):
        attack(view)


def test_a_message_without_a_layer_is_refused(digits8, observe):
    view = observe(*lenet(digits8, 1))
    del view.messages[0]["stages.1.0.weight"]
    with pytest.raises(IncompatibleCellError, match=r"stages\.1\.0\.weight"):
        attack(view)
