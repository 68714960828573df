import dataclasses
from functools import partial

import pytest
import torch
from torch import nn

from mibench.attacks.analytic_linear import AnalyticLinear
from mibench.errors import IncompatibleCellError
from mibench.knowledge import Knowledge
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal


@pytest.fixture
def observe(digits_view):
    """Makes a view of messages of an untrained network with the images behind them."""

    def make(batch=1, seed=0, dtype=torch.float32, hidden=(32,), count=1, change=lambda model: None):
        def target(spec):
            torch.manual_seed(seed)
            model = Mlp(spec=spec, hidden=hidden).to(dtype)
            change(model)
            return model

        return digits_view(target, count, batch, seed)

    return make


def attack(view, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return AnalyticLinear(**options)(view, Knowledge(), goal, seed=0).reconstruction


def wrong_layer(view, shape):
    """A stub that divides in the last layer: its answer is a feature, cut to an image's size."""
    weight, bias = (view.messages[0][f"head.{kind}"] for kind in ("weight", "bias"))
    feature = (bias @ weight) / bias.square().sum()
    return nn.functional.interpolate(feature[None, None], shape.numel())[0, 0].reshape(shape)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("combine", ["pinv", "max_row", "rows"])
def test_one_image_comes_back_to_float_precision(dtype, limit, combine, observe):
    worst, stub = 0.0, float("inf")
    for seed in range(20):
        view, secret = observe(seed=seed, dtype=dtype)
        result = attack(view, combine=combine)
        assert torch.equal(result.labels, secret.y)
        worst = max(worst, float((result.values - secret.x).abs().max()))
        stub = min(stub, float((wrong_layer(view, secret.x.shape[1:]) - secret.x).abs().max()))
    assert worst < limit
    assert stub > 0.1


def test_messages_are_solved_side_by_side(observe):
    view, secret = observe(count=5)
    torch.testing.assert_close(attack(view).values, secret.x, atol=1e-5, rtol=0)
    assert view.ledger.queries == 2


def test_several_local_steps_on_one_image_give_it_away_too(observe):
    view, secret = observe()
    moved = {name: 0.3 * value for name, value in view.messages[0].items()}
    torch.testing.assert_close(attack(dataclasses.replace(view, messages=[moved])).values, secret.x, atol=1e-5, rtol=0)


def test_noise_hurts_a_single_row_more_than_least_squares(observe):
    def error(combine):
        total = 0.0
        for seed in range(10):
            view, secret = observe(seed=seed)
            draws = torch.Generator().manual_seed(seed)
            noisy = {
                name: value + 1e-3 * torch.randn(value.shape, generator=draws)
                for name, value in view.messages[0].items()
            }
            found = attack(dataclasses.replace(view, messages=[noisy]), combine=combine)
            total += float((found.values - secret.x).square().mean())
        return total

    assert error("pinv") < 0.5 * error("max_row")


@pytest.fixture
def recovered(observe, nearest_errors):
    """How many of five batches of four images come back with a mean squared error below 1e-6."""

    def count():
        found = 0
        for seed in range(5):
            view, secret = observe(batch=4, seed=seed, hidden=(512,))
            found += int((nearest_errors(attack(view), secret) < 1e-6).sum())
        return found

    return count


def test_rows_that_one_image_alone_activates_give_it_exactly(monkeypatch, recovered):
    assert recovered() >= 15
    first_rows = torch.Tensor.argmax
    monkeypatch.setattr(torch.Tensor, "argmax", lambda x, *a: first_rows((x > 0).float(), *a))  # no vote: any row
    assert recovered() <= 8


def test_the_mean_of_a_batch_is_not_an_image_of_it(observe):
    view, secret = observe(batch=4, hidden=(512,))
    weight, bias = (view.messages[0][f"stages.0.0.{kind}"] for kind in ("weight", "bias"))
    mean = ((bias @ weight) / bias.square().sum() + 1) / 2
    assert float((secret.x.flatten(1) - mean).square().mean(1).min()) > 1e-3


def test_no_more_images_are_named_than_rows_give(observe):
    view, _ = observe(batch=8, hidden=(2,))
    assert int(attack(view).missing.sum()) >= 6


def test_a_ratio_outside_the_box_is_not_returned(observe):
    """A row gives an image, another of ten times its gradient the same image but for one pixel above the box."""
    view, secret = observe(batch=2)
    message = {name: torch.zeros_like(value) for name, value in view.messages[0].items()}
    image = 2 * secret.x[0].flatten() - 1  # as the layer sees it
    mixture = image.clone()
    mixture[20] = 1.2
    for row, (gradient, ratio) in enumerate(((0.1, image), (1.0, mixture))):
        message["stages.0.0.bias"][row] = gradient
        message["stages.0.0.weight"][row] = gradient * ratio
    result = attack(dataclasses.replace(view, messages=[message]))
    assert result.missing.tolist() == [False, True]
    torch.testing.assert_close(result.values[0], secret.x[0], atol=1e-5, rtol=0)


def without_bias(model):
    model.stages[0][0].bias = None


def frozen(model):
    model.stages[0][0].requires_grad_(False)


@pytest.mark.parametrize("change", [without_bias, frozen])
def test_a_first_layer_without_a_bias_in_the_message_is_refused(change, observe):
    view, _ = observe(change=change)
    with pytest.raises(IncompatibleCellError, match=r"'stages\.0\.0'.*choose target=mlp"):
        attack(view)


def test_a_convolution_is_refused(digits_view):
    view, _ = digits_view(partial(LeNet, channels=4), 1)
    with pytest.raises(IncompatibleCellError, match="is Conv2d"):
        attack(view)
