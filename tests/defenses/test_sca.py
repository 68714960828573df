import copy

import pytest
import torch

from mibench.defenses.base import Defense
from mibench.defenses.sca import Sca, SparseCoding
from mibench.errors import UserError
from mibench.targets.cnn import Cnn
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.targets.resnet18 import ResNet18
from mibench.training import Recipe


class Filtered(SparseCoding):
    """A stub: a convolution and a threshold, without competition."""

    def forward(self, x):
        return (self.matched(self.standardised(x), self.dictionary) - self.threshold).relu()


def coding(kind=SparseCoding, threshold=0.5, **options):
    torch.manual_seed(0)
    return kind(1, 32, 8, threshold=threshold, iterations=500, tau=10.0, **options)


def optimality(layer, x):
    """How far a code is from the optimum of the lasso: where it is active, and where it is not."""
    code, given = layer(x), layer.standardised(x)
    rest = layer.matched(given - layer.composed(code, given, layer.dictionary), layer.dictionary)
    active = code > 0
    return float((rest - layer.threshold)[active].abs().max()), float((rest - layer.threshold)[~active].max())


def test_codes_are_those_of_the_lasso(digits8):
    """Measured for 32 kernels of 64 pixels: at most 2e-6 from the threshold; the stub 0.93, and 0.67 beyond it."""
    x = digits8.private.train.x[:100]
    found, stub = optimality(coding(), x), optimality(coding(Filtered), x)
    assert max(found) < 0.02
    assert min(stub) > 0.2


def test_fewer_kernels_are_active_the_higher_the_threshold(digits8):
    """Measured: shares of 0.452, 0.378, 0.304 and 0.168 at 0.1, 0.3, 0.5 and 1."""
    x = digits8.private.train.x[:200]
    shares = [float((coding(threshold=value)(x) > 0).float().mean()) for value in (0.1, 0.3, 0.5, 1.0)]
    assert shares == sorted(shares, reverse=True)
    assert 0.4 < shares[0] < 0.6 and 0.1 < shares[3] < 0.25


def test_twenty_times_as_large_steps_lead_to_the_same_code(digits8):
    """Measured: 0.7 % apart on digits of 16 pixels."""
    torch.manual_seed(0)
    quick = SparseCoding(1, 16, 5, padding=2)
    slow = copy.deepcopy(quick)
    slow.iterations, slow.tau = 500, 100.0
    x = digits8.private.train.x[:20]
    assert float((quick(x) - slow(x)).norm() / slow(x).norm()) < 0.05


def test_the_attackers_gradient_runs_through_the_code(digits8):
    torch.manual_seed(0)
    layer = SparseCoding(1, 8, 5, padding=2).double()
    x = digits8.private.train.x[:1].double().requires_grad_(True)
    weight = torch.randn_like(layer(x))
    (slope,) = torch.autograd.grad((layer(x) * weight).sum(), x)
    step = 1e-6 * torch.randn_like(x)
    with torch.no_grad():
        moved = ((layer(x + step) - layer(x - step)) * weight).sum() / 2
    assert float(moved) == pytest.approx(float((slope * step).sum()), rel=1e-3)


@pytest.mark.parametrize("target", [Cnn, LeNet, ResNet18])
def test_the_first_convolutions_give_way_and_sizes_stay(target, digits8):
    torch.manual_seed(0)
    model = target(spec=digits8.spec)
    shapes = [block.shape for block in model.blocks(digits8.private.train.x[:2])]
    defended = Sca(iterations=2).architecture(model, None)
    assert [block.shape for block in defended.blocks(digits8.private.train.x[:2])] == shapes
    convolutions = [one for one in target(spec=digits8.spec).modules() if isinstance(one, torch.nn.Conv2d)]
    layers = [one for one in defended.modules() if isinstance(one, SparseCoding)]
    assert [layer.dictionary.shape[:2] for layer in layers] == [one.weight.shape[:2] for one in convolutions[:2]]
    assert [one.p for one in defended.modules() if isinstance(one, torch.nn.Dropout)][:2] == [0.09, 0.09]
    assert [layer.dictionary.shape[-1] for layer in layers] == [5, 5]
    assert all(torch.allclose(one.dictionary.flatten(1).norm(dim=1), torch.ones(1)) for one in layers)


def recipe(epochs):
    return Recipe(epochs=epochs, batch_size=64, lr=5e-3)


def test_a_model_learns_from_sparse_codes(train_under, accuracy_of):
    """Measured: accuracy 0.947 after six epochs with 20 steps to a code, 1 of a plain network."""
    sparse, plain = (accuracy_of(train_under(one, Cnn, recipe(6), width=8)) for one in (Sca(iterations=20), Defense()))
    assert sparse >= plain - 0.1


def test_the_dictionary_learns_only_when_it_is_told_to(digits8, started):
    """Measured: what a code leaves unexplained falls from 0.262 to 0.097."""

    def moved(defense):
        training = started(defense, Cnn, recipe(1), width=8)
        layer = next(one for one in training.model.modules() if isinstance(one, SparseCoding))
        old = layer.dictionary.clone()
        defense.fit(training)
        x = layer.standardised(digits8.private.test.x)
        lacking = x - layer.composed(layer(x), x, layer.dictionary)
        return not torch.equal(old, layer.dictionary), float(lacking.square().mean()), layer

    still, learned = moved(Sca(iterations=20)), moved(Sca(iterations=20, learn_dictionary=True, eta=1.0))
    assert not still[0] and learned[0]
    assert learned[1] < 0.7 * still[1]
    assert torch.allclose(learned[2].dictionary.flatten(1).norm(dim=1), torch.ones(1), atol=1e-5)


@pytest.mark.parametrize(("iterations", "potential"), [(1, 1 / 5), (2, 1 / 5 + 4 / 25)])
def test_a_step_goes_a_fifth_of_the_way_at_a_time_constant_of_five(iterations, potential):
    """One kernel, which meets the standardised pixel: the root of 3 drives it, and it has no rival."""
    layer = SparseCoding(1, 1, 2, threshold=0.1, iterations=iterations, tau=5.0)
    layer.dictionary.copy_(torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2))
    code = layer(torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2))
    assert float(code) == pytest.approx(3**0.5 * potential - 0.1, abs=1e-4)


def test_a_kernel_moves_by_what_its_places_lack_over_the_times_it_is_active():
    """It is active once, with a code of 1, where (1, 4, 0, 0) is lacking: half a step of (1, 4, 0, 0) / 2."""
    layer = SparseCoding(1, 1, 2, eta=0.5)
    layer.dictionary.copy_(torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 2, 2))
    x = torch.tensor([[2.0, 4, 0, 0], [1.0, 0, 0, 0]]).reshape(2, 1, 2, 2)
    layer._learn(x, torch.tensor([1.0, 0.0]).reshape(2, 1, 1, 1))
    torch.testing.assert_close(layer.dictionary.flatten(), torch.tensor([1.25, 1, 0, 0]) / 2.5625**0.5)


def test_no_layers_leave_the_target_as_it_is(train_under):
    plain, idle = (train_under(one, Cnn, recipe(1), width=8).head.weight for one in (Defense(), Sca(layers=0)))
    assert torch.equal(plain, idle)


def test_a_target_without_convolutions_is_refused(digits8):
    with pytest.raises(UserError, match=r"defense\.layers"):
        Sca().architecture(Mlp(spec=digits8.spec), None)


@pytest.mark.parametrize(("option", "value"), [("layers", -1), ("tau", 0.0), ("iterations", 0), ("dropout", 1.0)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(UserError, match=rf"defense\.{option}"):
        Sca(**{option: value})
