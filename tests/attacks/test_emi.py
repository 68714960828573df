import copy

import pytest
import torch

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.emi import Emi, Ensemble
from mibench.knowledge import Knowledge
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.class_ import ClassGoal
from mibench.training import Recipe, Training

CPU = torch.device("cpu")
SMALL = {"iterations": 60, "batch_size": 32, "width": 8, "candidates": 16, "latent_dim": 16, "gan_weight": 0.0}


@pytest.fixture(scope="module")
def models(trained_cnn, digits8):
    """Three models of the digits 0-4, of different architectures."""

    def train(model, seed, epochs=5, lr=5e-3):
        data, recipe = digits8.private.train, Recipe(epochs=epochs, batch_size=64, lr=lr)
        return Training(model, data, recipe, seed, CPU).run().eval()

    spec = digits8.spec
    torch.manual_seed(1)
    mlp, lenet = Mlp(spec=spec, hidden=[32]), LeNet(spec=spec, init=None)
    return [trained_cnn, train(mlp, 1), train(lenet, 2, 15, 1e-2)]


@pytest.fixture(scope="module")
def attack(digits8):
    """Attacks the digits 0-4 through several models; the first is the victim."""

    def run(models, seed=0, **options):
        def views(ledger, some=models):
            return tuple(WhiteBoxView.of(model, digits8.spec, ledger, CPU) for model in some)

        knowledge = Knowledge(digits8.public, ensemble=lambda ledger: views(ledger, models[1:]))
        goal = ClassGoal(torch.arange(5), samples=8)
        return Emi(**{**SMALL, **options})(views(Ledger())[0], knowledge, goal, seed=seed)

    return run


def test_three_times_the_same_model_is_one(attack, models):
    first = models[0]
    one, three = attack([first], iterations=5), attack([first] * 3, iterations=5)
    torch.testing.assert_close(one.reconstruction.values, three.reconstruction.values, atol=1e-3, rtol=0)
    assert sum(three.ledger["queries"].values()) == 3 * sum(one.ledger["queries"].values())
    assert one.ledger["queries"]["optimise"] == 5 * 32 and one.ledger["queries"]["select"] == 5 * 16


def views_of(models, spec):
    return [WhiteBoxView.of(model, spec, Ledger(), CPU) for model in models]


def test_every_model_pulls_at_the_images(models, digits8):
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    wanted, names = torch.tensor([0, 1, 2, 3, 4, 0]), [torch.arange(5)] * 3

    def pull(some, activation=0.0):
        loss = Ensemble(views_of(some, digits8.spec), names).loss(images, wanted, activation, 0.0)
        return torch.autograd.grad(loss, images)[0]

    whole = pull(models)
    assert torch.equal(whole, pull(models)) and not torch.equal(whole, pull(models, activation=1.0))
    for place in range(3):
        silenced = copy.deepcopy(models)
        torch.nn.init.zeros_(silenced[place].head.weight)
        assert float((pull(silenced) - whole).norm() / whole.norm()) > 0.01


def test_models_may_name_the_entities_differently(models, digits8):
    order = torch.tensor([3, 0, 4, 1, 2])
    renamed = copy.deepcopy(models)
    head = renamed[1].head
    head.weight.data[order], head.bias.data[order] = head.weight.data.clone(), head.bias.data.clone()
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    same, plain, mapped = [torch.arange(5)] * 3, models, [torch.arange(5), order, torch.arange(5)]
    for entities in (torch.tensor([0, 1, 2, 3, 4, 0]), None):
        expected = Ensemble(views_of(plain, digits8.spec), same).loss(images, entities, 0.1, 5.0)
        found = Ensemble(views_of(renamed, digits8.spec), mapped).loss(images, entities, 0.1, 5.0)
        unmapped = Ensemble(views_of(renamed, digits8.spec), same).loss(images, entities, 0.1, 5.0)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
        assert abs(unmapped - expected) > 0.01


def test_class_balance_keeps_an_unconditional_generator_from_forgetting_classes(attack, models, digits8):
    """The ensemble recognises two classes among the samples, and without the term a single one."""
    ensemble = Ensemble(views_of(models, digits8.spec), [torch.arange(5)] * 3)

    def covered(seed, balance):
        found = attack(models, seed, conditional=False, balance=balance).reconstruction
        return len(ensemble.probabilities(found.values).mean(0).argmax(1).unique())

    for seed in range(2):
        assert covered(seed, 5.0) > covered(seed, 0.0)
