import pytest
import torch
from torch import nn

from mibench.optim.regularisers import BatchNormStatistics, l2_norm, statistics_mismatch, total_variation


def test_total_variation_of_a_ramp_and_of_a_plane():
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    assert total_variation(ramp).item() == 1  # every step to the right is one, none downwards
    assert total_variation(2 * ramp, power=2).item() == 4
    assert total_variation(ramp, diagonals=True).item() == 3
    assert total_variation(torch.ones(2, 3, 4, 4)).tolist() == [0, 0]


def test_the_norm_is_per_sample():
    assert l2_norm(torch.stack([torch.ones(1, 2, 2), 2 * torch.ones(1, 2, 2)])).tolist() == [2, 4]


@pytest.fixture
def network():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
    data = torch.rand(256, 1, 8, 8)
    for _ in range(200):
        model.train()(data)  # the layers' memory becomes the statistics of these data
    return model.eval(), data


def test_the_batch_that_was_remembered_has_no_mismatch_and_noise_has(network):
    model, data = network
    with BatchNormStatistics(model) as statistics:
        model(data)
        real = statistics.mismatch().item()
        model(4 * torch.randn(256, 1, 8, 8))
        noise = statistics.mismatch().item()
    assert statistics.count == 2
    assert real < 0.05 < 1 < noise

    outputs = []  # a stub that looks at what leaves the layer finds a mismatch on the remembered batch too
    for layer in (model[1], model[4]):
        layer.register_forward_hook(lambda one, _i, out: outputs.append((one, out)))
    model(data)
    wrong = sum((out.mean((0, 2, 3)) - one.running_mean).norm().item() for one, out in outputs)
    assert wrong > 5 * real


def test_weights_are_of_the_first_layers_and_the_gradient_reaches_the_batch(network):
    model, _ = network
    x = torch.rand(8, 1, 8, 8, requires_grad=True)
    with BatchNormStatistics(model) as statistics:
        model(x)
        plain, weighted, without = (statistics.mismatch(w) for w in ((), (3.0,), (0.0,)))
        assert torch.isclose(weighted - plain, 2 * (plain - without))
        (gradient,) = torch.autograd.grad(plain, x)
    assert gradient.abs().sum() > 0
    assert not model[1]._forward_pre_hooks, "nothing is left on the model"


def test_unbiased_statistics_are_those_that_the_layers_remember(network):
    model, _ = network
    x = torch.rand(2, 1, 8, 8)
    for layer in (model[1], model[4]):
        layer.momentum = 1.0
    with BatchNormStatistics(model, unbiased=True) as statistics:
        model.train()(x)
        for own, remembered in zip(statistics.read(), statistics.remembered(), strict=True):
            torch.testing.assert_close(own, remembered)
        assert statistics.mismatch().item() < 1e-4
    with BatchNormStatistics(model) as biased:
        model.eval()(x)
        assert float((biased.read()[1][1] - biased.remembered()[1][1]).abs().max()) > 1e-3


def test_mismatches_of_several_batches_are_those_of_each():
    ours, theirs = [torch.rand(3, 2, 4), torch.rand(3, 2, 7)], [torch.rand(1, 2, 4), torch.rand(1, 2, 7)]
    together = statistics_mismatch(ours, theirs, (10.0,))
    alone = [statistics_mismatch([one[i] for one in ours], [one[0] for one in theirs], (10.0,)) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))
    first = (ours[0][0] - theirs[0][0]).norm(dim=1).sum()
    torch.testing.assert_close(together[0] - statistics_mismatch(ours, theirs)[0], 9 * first)
