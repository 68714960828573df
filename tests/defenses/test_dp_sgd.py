import copy
import math

import pytest
import torch
from torch import nn

from mibench.defenses.base import Defense
from mibench.defenses.dp_sgd import DpSgd
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.targets.cnn import Cnn
from mibench.targets.mlp import Mlp
from mibench.training import Recipe, Training

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def train(digits8):
    return digits8.private.train[torch.arange(60)]


@pytest.fixture
def shared(share):
    """The sum over examples behind what a client shares, as one vector: ``shared(defense, model, batch)``."""

    def measure(defense, model, batch, seed=0):
        return len(batch) * torch.cat([value.flatten() for value in share(defense, model, batch, seed).values()])

    return measure


@pytest.fixture(params=["step", "shared"])
def summed(request, step, shared):
    """The sum over examples behind one step of size 1, or behind what a client shares, as one vector."""
    if request.param == "shared":
        return shared
    return lambda defense, model, train: len(train) * step(defense, model, train)


class PerTensor(DpSgd):
    """A stub: clips every tensor of the batch's gradient by itself, as one often sees."""

    def update(self, gradient, client):
        return {name: value * (self.max_grad_norm / value.norm()).clamp_max(1) for name, value in gradient.items()}


class Unclipped(DpSgd):
    """A stub: trains without clipping."""

    def fit(self, training):
        return training.run()


def test_without_noise_and_with_a_huge_norm_it_is_plain_sgd(fitted, small_mlp, train):
    """Measured: 4e-7; with the norm at 1 the weights are 0.1 away."""

    def distance(defense):
        pairs = zip(
            fitted(defense, small_mlp, train, 5, 0.2).parameters(),
            fitted(Defense(), small_mlp, train, 5, 0.2).parameters(),
            strict=True,
        )
        return max(float((one - other).detach().abs().max()) for one, other in pairs)

    assert distance(DpSgd(noise_multiplier=0.0, max_grad_norm=1e6)) < 1e-5
    assert distance(DpSgd(noise_multiplier=0.0, max_grad_norm=1.0)) > 0.01


def test_one_record_moves_the_sum_by_at_most_the_norm(summed, shared, small_mlp, train):
    def influence(defense):
        whole = summed(defense, small_mlp, train)
        others = [summed(defense, small_mlp, train[torch.arange(60) != i]) for i in range(5)]
        return max(float((whole - other).norm()) for other in others)

    assert influence(DpSgd(noise_multiplier=0.0, max_grad_norm=0.5)) <= 0.5 * 1.001
    stub = PerTensor if summed is shared else Unclipped
    assert influence(stub(noise_multiplier=0.0, max_grad_norm=0.5)) > 0.5 * 1.001


def test_the_noise_has_the_stated_deviation(summed, digits8):
    """More than 1e5 coordinates, so that the sample deviation is within 1 % of the true one."""
    torch.manual_seed(0)
    wide = Mlp(spec=digits8.spec, hidden=(500, 200))
    train = digits8.private.train[torch.arange(8)]
    quiet = summed(DpSgd(noise_multiplier=0.0, max_grad_norm=0.5), wide, train)
    noise = summed(DpSgd(noise_multiplier=3.0, max_grad_norm=0.5), wide, train) - quiet
    assert len(noise) > 1e5
    assert float(noise.std()) == pytest.approx(1.5, rel=0.02)
    assert abs(float(noise.mean())) < 0.02


def test_epsilon_is_that_of_the_gaussian_mechanism(fitted, gaussian_epsilon, small_mlp, train):
    """Every step takes all examples, so there is a closed form; forgetting 19 of 20 steps gives less than half."""
    defense = DpSgd(noise_multiplier=8.0, delta=1e-5)
    fitted(defense, small_mlp, train, epochs=20)
    facts = defense.facts()
    assert facts["epsilon"] == pytest.approx(gaussian_epsilon(math.sqrt(20) / 8.0, 1e-5), abs=0.03)
    assert facts["epsilon"] > 2 * gaussian_epsilon(1 / 8.0, 1e-5)
    assert (facts["delta"], facts["noise_multiplier"], facts["accountant"]) == (1e-5, 8.0, "prv")


def test_delta_is_one_over_the_number_of_examples_and_the_common_one_stands_beside_it(
    fitted, gaussian_epsilon, small_mlp, train
):
    defense = DpSgd(noise_multiplier=8.0)
    fitted(defense, small_mlp, train, epochs=20)
    facts, mu = defense.facts(), math.sqrt(20) / 8.0
    assert facts["delta"] == pytest.approx(1 / 60) and facts["delta_common"] == 1e-5
    assert facts["epsilon"] == pytest.approx(gaussian_epsilon(mu, 1 / 60), abs=0.03)
    assert facts["epsilon_common"] == pytest.approx(gaussian_epsilon(mu, 1e-5), abs=0.03)
    assert facts["epsilon_common"] > facts["epsilon"] + 0.5
    assert (facts["unit"], facts["neighbours"]) == ("example", "add or remove")


def test_without_noise_there_is_no_guarantee(fitted, small_mlp, train):
    defense = DpSgd(noise_multiplier=0.0)
    assert "epsilon" not in defense.facts()
    fitted(defense, small_mlp, train)
    assert defense.facts()["epsilon"] == defense.facts()["epsilon_common"] == math.inf


def test_weak_noise_is_accounted_by_rdp(fitted, small_mlp, train):
    defense = DpSgd(noise_multiplier=0.1)
    fitted(defense, small_mlp, train)
    assert defense.facts()["accountant"] == "rdp"
    assert 10 < defense.facts()["epsilon"] < 1000


def test_a_target_epsilon_chooses_the_noise(small_mlp, train):
    def epsilon(**options):
        defense = DpSgd(accountant="rdp", **options)
        defense.fit(Training(copy.deepcopy(small_mlp), train, Recipe(epochs=3, batch_size=16), 0, CPU))
        return defense.facts()["epsilon"]

    assert epsilon(target_epsilon=2.0) == pytest.approx(2.0, abs=0.02)
    assert epsilon(noise_multiplier=1.0) != pytest.approx(2.0, abs=0.02)


def test_the_defended_architecture_holds_no_batch_norm(digits8):
    defended = DpSgd().architecture(Cnn(spec=digits8.spec, width=4), None)
    kinds = {type(module) for module in defended.modules()}
    assert isinstance(defended, Classifier)
    assert nn.GroupNorm in kinds and nn.BatchNorm2d not in kinds


def test_in_place_activations_are_replaced(digits8, train):
    """Opacus' hooks forbid them."""
    model = Cnn(spec=digits8.spec, width=4)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    trained = DpSgd().fit(Training(DpSgd().architecture(model, None), train, Recipe(epochs=1, batch_size=30), 0, CPU))
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


def test_what_is_returned_is_the_plain_module(digits8):
    """No wrapper, no hook and no per-example gradient is left: second-order gradients work, and a copy can be made."""
    model = DpSgd().architecture(Cnn(spec=digits8.spec, width=4), None)
    training = Training(model, digits8.private.train, Recipe(epochs=1, batch_size=64), 0, CPU)
    trained = DpSgd().fit(training)
    assert len(training.curve) > 1 and all(loss > 0 for _, loss in training.curve), "the loss curve is kept"
    assert trained is model and not trained.training
    assert not any(name.startswith("_module") for name in trained.state_dict())
    assert all(p.grad is None and getattr(p, "grad_sample", None) is None for p in trained.parameters())
    x = digits8.public.x[:4].clone().requires_grad_(True)
    (first,) = torch.autograd.grad(copy.deepcopy(trained)(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, allow_unused=True)
    assert second is not None and second.isfinite().all()


def test_the_same_seed_gives_the_same_victim(small_mlp, train):
    def weights(seed):
        recipe = Recipe(epochs=2, batch_size=16)
        trained = DpSgd(accountant="rdp").fit(Training(copy.deepcopy(small_mlp), train, recipe, seed, CPU))
        return trained.head.weight

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_empty_batches_are_survived(small_mlp, train):
    """With two examples and two steps per epoch, a quarter of the Poisson batches is empty."""
    recipe = Recipe(epochs=20, batch_size=1)
    trained = DpSgd().fit(Training(copy.deepcopy(small_mlp), train[torch.arange(2)], recipe, 0, CPU))
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


def test_an_update_without_noise_and_with_a_huge_norm_is_the_gradient(shared, small_mlp, train):
    plain = shared(Defense(), small_mlp, train)
    assert torch.allclose(shared(DpSgd(noise_multiplier=0.0, max_grad_norm=1e6), small_mlp, train), plain, atol=1e-4)
    assert not torch.allclose(shared(DpSgd(noise_multiplier=0.0), small_mlp, train), plain, atol=1e-2)


def test_clients_draw_noise_of_their_own(shared, small_mlp, train):
    assert not torch.equal(shared(DpSgd(), small_mlp, train, seed=1), shared(DpSgd(), small_mlp, train, seed=2))
    assert torch.equal(shared(DpSgd(), small_mlp, train, seed=1), shared(DpSgd(), small_mlp, train, seed=1))


def test_an_update_cannot_have_a_target_epsilon(shared, small_mlp, train):
    with pytest.raises(UserError, match=r"defense\.target_epsilon"):
        shared(DpSgd(target_epsilon=1.0), small_mlp, train)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("noise_multiplier", -1.0),
        ("max_grad_norm", 0.0),
        ("target_epsilon", 0.0),
        ("delta", 1.0),
        ("accountant", "gdp"),
    ],
)
def test_impossible_options_are_refused(option, value):
    with pytest.raises(UserError, match=rf"defense\.{option}"):
        DpSgd(**{option: value})


def test_a_cell_reports_the_guarantee(make_cell):
    cell = make_cell("defense=dp_sgd", "target.recipe.epochs=1", "target.recipe.min_steps=0", "dataset.size=8")
    said = {"epsilon", "delta", "epsilon_common", "delta_common", "accountant", "unit", "neighbours"}
    assert said | {"noise_multiplier", "max_grad_norm"} == set(cell.victim.reported)
