"""What tests of several defenses share: trainings, a client and what DLG makes of its update, a decoder of features."""

import copy
import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import norm

from mibench.access import FeaturesView, GradientsView, Ledger
from mibench.attacks.dlg import Dlg
from mibench.attacks.split_decoder import SplitDecoder
from mibench.defenses.base import Client, DefenderData, DefenseContext
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.seeding import seeded
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal
from mibench.training import Batch, Recipe, Training, is_correct

MESSAGES = 4
CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def started(digits8):
    """The training of a network under a defense, about to happen: ``started(defense, target, recipe, cut, **size)``."""

    def start(defense, target=Mlp, recipe=None, cut=None, **size):
        torch.manual_seed(0)
        model = target(spec=digits8.spec, **size)
        model.cut = cut
        model = defense.architecture(model, DefenseContext(digits8.spec, None, 0, CPU, cut))
        public = digits8.public if defense.learns_from_public else None
        return Training(model, digits8.private.train, recipe or Recipe(), 0, CPU, public=public)

    return start


@pytest.fixture(scope="session")
def train_under(started):
    """A network trained under a defense: ``train_under(defense, target, recipe, cut, **size)``."""
    return lambda defense, *how, **size: defense.fit(started(defense, *how, **size))


@pytest.fixture(scope="session")
def accuracy_of(digits8):
    """The share of the test digits that a model is right on: ``accuracy_of(model)``."""
    return lambda model: float(is_correct(model.predict_proba, digits8.private.test).float().mean())


@pytest.fixture(scope="session")
def learned(trained_cnn, digits8):
    """A defense that has learned of a finished model on the private digits: ``learned(defense)``."""
    data = DefenderData(digits8.private.train, digits8.private.train[torch.arange(0)], None)

    def learn(defense):
        with seeded(0):
            defense.learn(trained_cnn, DefenseContext(digits8.spec, data, 0, CPU))
        return defense

    return learn


@pytest.fixture(scope="session")
def gradient_of():
    """The gradient of a defense's loss: ``gradient_of(defense, model, batch)``, with the ``seed`` of its draws."""

    def make(defense, model, batch, seed=0):
        parameters = dict(model.named_parameters())
        with seeded(seed):
            loss = defense.loss(Batch(model, batch.x, batch.y))
        return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))

    return make


@pytest.fixture(scope="session")
def share(gradient_of):
    """What one client shares: ``share(defense, model, batch)``, with the client's ``seed``."""

    def make(defense, model, batch, seed=0):
        return defense.update(gradient_of(defense, model, batch, seed), Client(0, 0, 2, model, batch, seed))

    return make


@pytest.fixture(scope="session")
def dlg_psnr(digits8, share):
    """Mean decibels of what DLG makes of four single images behind a defense, labels granted: ``dlg_psnr(defense)``.

    With ``without`` the attacker leaves the tensors out of the distance whose names begin so. A defense is one of its
    class and options; it is attacked once.
    """
    known = {}

    def measure(defense, without=None):
        key = type(defense), str(sorted(vars(defense).items())), without
        if key not in known:
            known[key] = attacked(defense, without)
        return known[key]

    def attacked(defense, without):
        torch.manual_seed(0)
        model = defense.architecture(LeNet(spec=digits8.spec, channels=8), None).eval()
        rows = torch.randperm(len(digits8.private.train), generator=torch.Generator().manual_seed(1))[:MESSAGES]
        secret = digits8.private.train[rows]
        sent = [share(defense, model, secret[torch.tensor([i])], seed=i) for i in range(MESSAGES)]
        if without is not None:
            sent = [{name: value for name, value in one.items() if not name.startswith(without)} for one in sent]
        view = GradientsView.of(model, sent, 1, digits8.spec, Ledger(), torch.device("cpu"))
        granted = Knowledge(facts={"labels": secret.y}, described=("labels",))
        attack = Dlg(iterations=20, restarts=1)  # from the fifteenth on no number changes
        result = attack(view, granted, InstanceGoal(MESSAGES, 1), seed=0).reconstruction
        return float((-10 * squared_errors(result.values, secret.x).log10()).clamp_max(100).mean())

    return measure


@pytest.fixture(scope="session")
def decoder_error(digits8):
    """Mean squared error of a fresh decoder of what a model's client part sends: ``decoder_error(model)``."""

    def measure(model):
        x = digits8.private.test.x[:100]
        with torch.no_grad():
            sent = model.client(x)[None]
        view = FeaturesView.of(
            model,
            sent,
            digits8.spec,
            Ledger(),
            torch.device("cpu"),
            ask=lambda x: model.client(x),
            untrained=lambda seed: None,
        )
        attack = SplitDecoder(decoder="custom", channels=32, epochs=12, lr=3e-3)
        result = attack(view, Knowledge(public_data=digits8.public), InstanceGoal(100, 1), seed=0)
        return float(squared_errors(result.reconstruction.values, x).mean())

    return measure


@pytest.fixture(scope="session")
def small_mlp(digits8):
    """An untrained perceptron of sixteen hidden units; copied before it is trained."""
    torch.manual_seed(0)
    return Mlp(spec=digits8.spec, hidden=(16,))


@pytest.fixture(scope="session")
def fitted():
    """A copy of a model after full-batch SGD under a defense: ``fitted(defense, model, train)``.

    Every step takes every example, whoever samples.
    """

    def fit(defense, model, train, epochs=1, lr=1.0):
        recipe = Recipe(epochs=epochs, batch_size=len(train), lr=lr, optimizer="sgd", momentum=0.0, schedule="constant")
        return defense.fit(Training(copy.deepcopy(model), train, recipe, 0, torch.device("cpu")))

    return fit


@pytest.fixture(scope="session")
def step(fitted):
    """What one step of size 1 takes off the weights, as one vector: ``step(defense, model, train)``."""

    def measure(defense, model, train):
        moved = zip(model.parameters(), fitted(defense, model, train).parameters(), strict=True)
        return torch.cat([(before - after).detach().flatten() for before, after in moved])

    return measure


@pytest.fixture(scope="session")
def gaussian_epsilon():
    """The exact epsilon of a Gaussian mechanism (Balle and Wang, 2018): ``gaussian_epsilon(mu, delta)``.

    Here mu is the sensitivity over the deviation, times the square root of the number of steps.
    """

    def find(mu, delta):
        def excess(epsilon):
            return norm.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * norm.cdf(-mu / 2 - epsilon / mu) - delta

        return brentq(excess, 0, 100)

    return find
