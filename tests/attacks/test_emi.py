import copy
from types import SimpleNamespace

import pytest
import torch
from exact import Spy, steps_of

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks import emi
from mibench.attacks.emi import Emi, Ensemble, Networks
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


def test_the_ensembles_loss_is_that_of_the_docstring():
    """Cross-entropy and activations, means over two models, and the class balance where these say who is shown."""
    draws = torch.Generator().manual_seed(0)
    logits, features = torch.randn(2, 4, 3, generator=draws), torch.randn(2, 4, 5, generator=draws)
    stubs = [SimpleNamespace(logits_and_features=lambda x, m=m: (logits[m], features[m])) for m in range(2)]
    ensemble = Ensemble(stubs, [torch.arange(3)] * 2)
    entities, shares = torch.tensor([0, 2, 1, 1]), logits.softmax(2).mean(0)
    size = features.abs().mean()

    def surprise(who):
        return -logits.log_softmax(2)[:, torch.arange(4), who].mean()

    told = ensemble.loss(torch.zeros(4), entities, 0.3, 5.0)
    torch.testing.assert_close(told, surprise(entities) - 0.3 * size)
    mean = shares.mean(0)
    said = ensemble.loss(torch.zeros(4), None, 0.3, 5.0)
    torch.testing.assert_close(said, surprise(shares.argmax(1)) - 0.3 * size + 5.0 * (mean * mean.log()).sum())


def test_critic_and_generator_step_along_the_stated_losses(attack, models, monkeypatch):
    judging, owners = Networks.critic, []
    critic = Spy(lambda x, made: owners.append(made) or judging(made, x))
    monkeypatch.setattr(Networks, "critic", lambda self, x: critic(x, self))
    monkeypatch.setattr(emi, "random_images", lambda x, count, *given: torch.zeros(count, *x.shape[1:]))
    monkeypatch.setattr(emi, "gradient_penalty", lambda *given: torch.tensor(0.25))
    monkeypatch.setattr(Ensemble, "loss", lambda *given: torch.tensor(7.0))
    (of_critic, judge), (of_maker, makers) = steps_of(emi, lambda: attack(models[:1], gan_weight=0.5), 2)
    *both, third = (float(one.detach().mean()) for one in critic.returned)
    public, made = sorted(both, key=lambda score: bool(critic.given[both.index(score)].any()))  # public ones are black
    assert of_critic == pytest.approx(made - public + 10 * 0.25, abs=1e-6)
    assert of_maker == pytest.approx(7.0 - 0.5 * third, abs=1e-6)
    assert judge is owners[0].judge and {*judge.parameters()}.isdisjoint(makers.parameters())


def test_samples_are_chosen_by_the_least_sure_model(attack, models, monkeypatch):
    """A stub of an ensemble: the first model prefers bright images, the second is sure of dark ones alone."""

    def probabilities(self, images):
        bright = images.mean((1, 2, 3))[:, None].expand(-1, 5)
        return torch.stack([bright, 1 - bright])

    monkeypatch.setattr(Ensemble, "probabilities", probabilities)
    few = attack(models[:1], iterations=1, candidates=8).reconstruction.values
    chosen = attack(models[:1], iterations=1, candidates=64).reconstruction.values
    apart = [(one.mean((1, 2, 3)) - 0.5).abs().mean() for one in (few, chosen)]
    assert float(apart[1]) < float(apart[0]), "the lowest of both is highest at the mean brightness of 1/2"


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
