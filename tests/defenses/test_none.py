import pytest
import torch

from mibench.access import Message, Round
from mibench.data import InputSpec
from mibench.defenses.base import Client, DefenderData, DefenseContext
from mibench.defenses.none import NoDefense
from mibench.seeding import derive
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.cnn import Cnn
from mibench.training import Batch, Recipe, Training, cross_entropy

RECIPE = Recipe(epochs=2, batch_size=64)


@pytest.fixture
def context(digits8):
    train = digits8.private.train
    return DefenseContext(digits8.spec, DefenderData(train, train[torch.arange(0)], None), 0, torch.device("cpu"))


def test_every_hook_returns_what_it_was_given(digits8, context, trained_cnn):
    none, batch = NoDefense(), digits8.private.train[torch.arange(4)]
    gradient = {"weight": torch.ones(3)}
    client = Client(0, 0, 2, trained_cnn, batch, seed=0)
    assert none.overridden() == ()
    assert none.data(batch, context) is batch
    assert none.input(batch.x) is batch.x
    assert none.architecture(trained_cnn, context) is trained_cnn
    assert none.output(batch.x) is batch.x
    assert none.features(batch.x) is batch.x
    assert none.update(gradient, client) is gradient
    assert none.protocol([gradient], Round(0, 2, seed=0)) == [Message(gradient)]
    assert none.explain(batch.x, batch.x, batch.x, None) is batch.x
    assert not none.state() and not none.facts() and not client.state
    assert torch.equal(
        none.loss(Batch(trained_cnn, batch.x, batch.y)), cross_entropy(Batch(trained_cnn, batch.x, batch.y))
    )


def test_the_victim_is_that_of_plain_training_bit_by_bit(digits8, context, workshop):
    spec = InputSpec("image", digits8.spec.shape, 5)
    blueprint = Blueprint("cnn", lambda spec: Cnn(spec=spec, width=4), RECIPE, {})
    victim = train_central(blueprint, digits8.private, digits8, NoDefense(), workshop, {}, 3, "victim")

    def plain(seed):
        with torch.random.fork_rng():
            torch.manual_seed(derive(derive(3, "defense"), "initial weights"))
            model = Cnn(spec=spec, width=4)
        return Training(model, digits8.private.train, RECIPE, derive(seed, "victim"), torch.device("cpu")).run()

    x = digits8.private.test.x
    assert torch.equal(victim.predict_proba(x), plain(3).predict_proba(x))
    assert not torch.equal(victim.predict_proba(x), plain(4).predict_proba(x))  # another order of the examples shows
