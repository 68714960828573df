"""What stays with the clients of federated learning: running statistics of batch norm, and the order of examples."""

import copy
import dataclasses
import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mibench.access import Ledger
from mibench.card import TargetCard
from mibench.data import Examples
from mibench.defenses.base import Defense
from mibench.defenses.none import NoDefense
from mibench.nn.batch_norm import norms, use_batch_statistics
from mibench.running.notes import LABELS_IN_ORDER
from mibench.settings.clients import LOCAL_STATISTICS, RESHUFFLED
from mibench.settings.federated import Federated
from mibench.targets.base import Target
from mibench.training import is_correct

LEARNED = {"rounds": 30, "clients": 4, "batch_size": 16, "lr": 0.5}


class Normed(Target):
    """A small network whose batch norm matters: its inputs are moved far off."""

    card = TargetCard(name="normed", title="Normed", modalities=("image",))

    def __init__(self, *, spec):
        super().__init__(spec=spec)
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU())])
        self.head = nn.Linear(32, spec.classes)
        with torch.no_grad():
            self.stages[0][1].bias += 10


def trained(scene, **options):
    setting = Federated(**{**LEARNED, **options})
    return setting, setting.train(scene, scene.split.private, "victim")


def accuracy(answers, scene):
    return float(is_correct(answers, scene.split.private.test).double().mean())


def test_the_accuracy_is_that_of_clients_who_normalise_by_their_own_data(make_scene):
    """With the statistics of the global model, which no round has moved, the same weights name classes at random."""
    scene = make_scene(Normed)
    _, victim = trained(scene)
    by_batch = copy.deepcopy(victim.module)
    use_batch_statistics(by_batch)
    right = accuracy(by_batch.predict_proba, scene)
    assert accuracy(victim.module.predict_proba, scene) < 0.5 < 0.85 < right
    assert accuracy(victim.predict_proba, scene) == pytest.approx(right, abs=0.05)
    private = scene.split.private.train.x
    every = victim.module.stages[0][1](private.flatten(1)).mean(0)
    own = [model.stages[0][2].running_mean for model in victim.clients]
    torch.testing.assert_close(torch.stack(own).mean(0), every, atol=5e-2, rtol=1e-2)
    assert not torch.equal(own[0], own[1])
    for options in ({"share_buffers": True}, {"batch_norm": "eval"}, {"rounds": 0}):
        _, other = trained(scene, **options)
        expected = other.module.predict_proba(private[:9])
        assert torch.equal(other.predict_proba(private[:9]), expected), "where nothing is kept, nothing is put in"


def test_who_holds_the_global_model_has_the_statistics_of_public_data_and_no_private_ones(make_scene):
    scene = make_scene(Normed)
    setting, victim = trained(scene)
    view = setting.observe(scene, victim, scene.split.private, "white_box", 0, Ledger()).view
    (found,) = norms(view.model).values()
    public = victim.module.stages[0][1](scene.split.public.x.flatten(1))
    torch.testing.assert_close(found.running_mean, public.mean(0), atol=2e-2, rtol=1e-3)
    assert accuracy(lambda x: view.logits(x).softmax(1), scene) > 0.7, "so the model is not broken for an attacker"
    data = Examples(scene.split.private.train.x.flip(0) * 0.5, scene.split.private.train.y)
    moved = dataclasses.replace(scene.split.private, train=data)
    other = dataclasses.replace(victim, clients=[])
    assert torch.equal(next(iter(norms(other.snapshot).values())).running_mean, found.running_mean)
    blind = dataclasses.replace(scene, split=dataclasses.replace(scene.split, public=None))
    alone = setting.train(blind, moved, "victim").snapshot
    assert all(not layer.running_mean.any() for layer in norms(alone).values())
    x = scene.split.public.x[:32]
    assert not torch.allclose(alone(x)[:8], alone(x[:8]), rtol=1e-2), "it goes by its batch"
    gradients = setting.observe(scene, victim, scene.split.private, "gradients", 1, Ledger()).view
    assert not next(iter(norms(gradients.model).values())).running_mean.any()


def test_statistics_are_those_of_what_a_defense_lets_clients_train_on(make_scene):
    class Halving(Defense):
        def data(self, examples, context):
            return Examples(examples.x / 2, examples.y)

    scene = make_scene(Normed, Halving())
    _, victim = trained(scene, rounds=1)
    private, linear = scene.split.private.train.x.flatten(1), victim.module.stages[0][1]
    found = victim.clients[2].stages[0][2].running_mean
    assert not torch.allclose(linear(private).mean(0), found, atol=0.1)
    torch.testing.assert_close(found, linear(private / 2).mean(0), atol=0.1, rtol=1e-2)


def test_a_reader_is_told_where_statistics_and_orders_stay():
    def said(normed=True, **options):
        return Federated(**options).described(NoDefense.card, normed)[1:]

    assert said(rounds=2) == [LOCAL_STATISTICS]
    assert said(rounds=2, normed=False) == said() == []
    assert (
        said(rounds=2, share_buffers=True) == Federated(rounds=2, batch_norm="eval").described(NoDefense.card, True)[1:]
    )
    several = {"batch_size": 4, "local_batch_size": 2, "local_epochs": 2}
    assert said(**several) == [RESHUFFLED]
    assert said(**{**several, "local_epochs": 1}) == said(**{**several, "local_batch_size": 4}) == []
    assert said(**several, reshuffle=False) == []


def message(scene, setting):
    victim = setting.train(scene, scene.split.private, "victim")
    seen = setting.observe(scene, victim, scene.split.private, "gradients", 2, Ledger())
    return victim, seen


def test_a_client_takes_its_examples_in_another_order_in_every_later_epoch(make_scene):
    """By hand: some pair of orders of the later two epochs gives the update, and it is not that of the first."""
    scene = make_scene()
    setting = Federated(batch_size=3, local_batch_size=1, local_epochs=3, local_lr=0.5)
    victim, seen = message(scene, setting)

    def after(orders, x, y):
        model = copy.deepcopy(victim.module)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        for row in [row for order in orders for row in order]:
            optimizer.zero_grad()
            cross_entropy(model(x[row : row + 1]), y[row : row + 1]).backward()
            optimizer.step()
        return victim.module.head.bias.detach() - model.head.bias.detach()

    every = list(itertools.permutations(range(3)))
    chosen = []
    for number in (0, 1):
        x, y = (part[3 * number : 3 * number + 3] for part in (seen.secret.x, seen.secret.y))
        sent = seen.view.messages[number]["head.bias"]
        apart = {pair: float((after([every[0], *pair], x, y) - sent).abs().max())
                 for pair in itertools.product(every, every)}  # fmt: skip
        pair = min(apart, key=apart.get)
        assert apart[pair] < 1e-6 < sorted(apart.values())[1]
        chosen.append(pair)
    assert chosen[0] != chosen[1] and (every[0], every[0]) not in chosen
    again = message(scene, setting)[1]
    assert torch.equal(again.view.messages[1]["head.bias"], seen.view.messages[1]["head.bias"])


def test_orders_change_the_global_model_only_where_they_make_a_difference(make_scene):
    scene = make_scene()

    def key(**options):
        setting = Federated(**{"rounds": 1, "clients": 2, "batch_size": 4, "local_epochs": 2, **options})
        return setting.train(scene, scene.split.private, "victim").key["setting"]

    assert key(local_batch_size=2) != key(local_batch_size=2, reshuffle=False)
    for options in ({}, {"local_epochs": 1, "local_batch_size": 2}):
        assert key(**options) == key(**options, reshuffle=False)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"local_batch_size": 2}, 2),
        ({"local_epochs": 2}, 1),
        ({"local_epochs": 2, "clients_per_message": 2}, 2),
        ({"clients_per_message": 2}, 1),
        ({}, 1),
    ],
)
def test_granted_labels_that_tell_mini_batches_are_said(make_cell, options, parts):
    assert Federated(batch_size=4, **options).parts_of_message == parts
    words = [f"setting.{key}={value}" for key, value in {"batch_size": 4, **options}.items()]
    small = ["dataset.size=8", "attack.iterations=1", "attack.restarts=1", "setting.clients=4", "budget.targets=2"]
    granted, read = (
        make_cell("attack=inverting_gradients", "metric=[psnr]", f"knowledge.labels={say}", *small, *words)
        for say in ("true", "false")
    )
    assert (LABELS_IN_ORDER in granted.notes) == (parts > 1) and LABELS_IN_ORDER not in read.notes
