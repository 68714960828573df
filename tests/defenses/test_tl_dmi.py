import copy
import dataclasses

import pytest
import torch

from mibench.data import Examples
from mibench.defenses.base import Defense
from mibench.defenses.tl_dmi import TlDmi, first_layers, labelled
from mibench.errors import UserError
from mibench.nn.pretraining import learn_public
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.cnn import Cnn
from mibench.training import Recipe, Training, cross_entropy

CPU = torch.device("cpu")
RECIPE = Recipe(epochs=2, batch_size=32, optimizer="sgd", lr=0.05, weight_decay=0.1)


def started(digits8, public=True):
    torch.manual_seed(0)
    model = Cnn(spec=digits8.spec, width=4)
    return Training(model, digits8.private.train, RECIPE, 0, CPU, public=digits8.public if public else None)


def after_public(digits8):
    """The model as the public data leave it."""
    plan = started(digits8)
    learn_public(plan, labelled(plan.public), "tl_dmi")
    return plan.model


def moved(before, after, layers):
    """The names of the tensors of ``layers`` that two state dicts differ in."""
    return {name for name in before if name.startswith(layers) and not torch.equal(before[name], after[name])}


class TrainMode(TlDmi):
    """A stub: frozen batch norms are left in training mode."""

    def fit(self, training):
        learn_public(training, labelled(training.public), "tl_dmi")
        for layer in first_layers(training.model, self.frozen):
            layer.requires_grad_(False)
        return training.run(cross_entropy)


class Decayed(TlDmi):
    """A stub: frozen weights get no gradient, but are given to the optimiser, which decays them."""

    def fit(self, training):
        learn_public(training, labelled(training.public), "tl_dmi")
        still = first_layers(training.model, self.frozen)

        def loss(batch):
            for layer in still:
                layer.eval()
            value = cross_entropy(batch)
            return value

        for layer in still:
            for parameter in layer.parameters():
                parameter.register_hook(torch.zeros_like)
        return training.run(loss)


def test_frozen_weights_and_statistics_stay_to_the_bit_and_the_others_move(digits8):
    """Frozen: two of three blocks (each a convolution and a batch norm); the head and the third block learn."""
    before = after_public(digits8).state_dict()
    defense = TlDmi()
    after = defense.fit(started(digits8)).state_dict()
    early = ("stages.0.", "stages.1.")
    assert not moved(before, after, early)
    assert {"stages.2.0.weight", "stages.2.1.running_mean", "head.weight"} <= moved(before, after, ("stages.2", "head"))
    total = sum(p.numel() for p in Cnn(spec=digits8.spec, width=4).parameters())
    still = sum(value.numel() for name, value in before.items() if name.startswith(early) and "running" not in name) - 2
    assert defense.facts()["trainable_share"] == pytest.approx(1 - still / total)
    statistics = moved(before, TrainMode().fit(started(digits8)).state_dict(), early)
    assert {"stages.0.1.running_mean", "stages.1.1.running_var"} <= statistics
    assert "stages.0.0.weight" in moved(before, Decayed().fit(started(digits8)).state_dict(), early)


def test_nothing_frozen_is_plain_fine_tuning(digits8):
    free = TlDmi(frozen=0.0).fit(started(digits8)).state_dict()
    plan = started(digits8)
    plan.model = after_public(digits8)
    tuned = plan.run().state_dict()
    assert not moved(free, tuned, ("",))
    assert moved(free, started(digits8).run().state_dict(), ("stages",))  # it began with what public data taught


def test_the_public_training_leaves_the_head_alone_and_moves_the_rest(digits8):
    fresh, learned = started(digits8).model, after_public(digits8)
    assert torch.equal(learned.head.weight, fresh.head.weight)
    assert moved(fresh.state_dict(), learned.state_dict(), ("stages.0.0",))
    assert all(p.requires_grad for p in TlDmi().fit(started(digits8)).parameters())


def test_a_victim_learns_from_the_public_data_that_its_key_names(digits8, workshop):
    def victim(split, defense):
        blueprint = Blueprint("cnn", lambda spec: Cnn(spec=spec, width=4), Recipe(epochs=1), {})
        return train_central(blueprint, split.private, split, defense, workshop, {}, 0, "victim")

    fewer = dataclasses.replace(digits8, public=digits8.public[torch.arange(64)])
    one, other = victim(digits8, TlDmi()), victim(fewer, TlDmi())
    assert one.key != other.key
    assert not torch.equal(one.module.stages[0][0].weight, other.module.stages[0][0].weight)
    assert victim(digits8, Defense()).key == victim(fewer, Defense()).key


def test_public_data_without_labels_are_refused(digits8):
    public = digits8.public
    for useless in (None, Examples(public.x, torch.zeros_like(public.y)), Examples(public.x, public.y - 6)):
        plan = copy.copy(started(digits8))
        plan.public = useless
        with pytest.raises(UserError, match="public data of several known classes"):
            TlDmi().fit(plan)
