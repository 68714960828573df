"""Models and priors of an attacker that are trained by asking the victim."""

import dataclasses

import pytest
import torch

from mibench.defenses.base import Defense
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell


@pytest.fixture
def attack_with_a_model(monkeypatch):
    """MI-Face replaced by an attack that trains a model of its own by asking the victim 30 times."""
    from torch import nn

    from mibench.attacks.mi_face import MiFace
    from mibench.tasks.base import Reconstruction

    trainings = []

    def networks(self, view, knowledge):
        return nn.ModuleDict({"map": nn.Linear(view.spec.classes, 64)})

    def prepare(self, networks, view, knowledge):
        trainings.append(1)
        x = torch.rand(30, 1, 8, 8)
        scores = view.logits(x)
        networks["map"].bias.data = x.mean(0).flatten() + 0 * scores.sum()

    def reconstruct(self, view, knowledge, goal, networks):
        with torch.no_grad():
            images = networks["map"](nn.functional.one_hot(goal.labels, view.spec.classes).float())
            images = images.reshape(-1, 1, 8, 8).clamp(0, 1)
            view.logits(images)
        return Reconstruction(images, goal.labels)

    for method in (networks, prepare, reconstruct):
        monkeypatch.setattr(MiFace, method.__name__, method)
    return trainings


def test_an_attacks_own_models_are_stored_with_what_they_cost(attack_with_a_model, make_cell, trained_folder):
    folder = trained_folder()
    cold = make_cell("attack=mi_face", folder=folder)
    assert cold.result.ledger["queries"] == {"prepare": 30, "initialise": 0, "optimise": 4, "select": 0}
    warm = make_cell("attack=mi_face", folder=folder)
    warm.rebuild = True
    assert warm.result.ledger == cold.result.ledger and len(attack_with_a_model) == 1
    assert torch.equal(warm.result.reconstruction.values, cold.result.reconstruction.values)
    elsewhere = make_cell("attack=mi_face", folder=trained_folder("elsewhere"))
    assert torch.equal(elsewhere.result.reconstruction.values, cold.result.reconstruction.values)
    assert cold.control is not None and len(attack_with_a_model) == 3, "the control's models are its own"


def test_where_the_defense_remembers_the_attackers_models_are_trained_by_the_one_who_attacks(
    attack_with_a_model, make_cell, trained_folder, monkeypatch
):
    folder = trained_folder()
    cold = make_cell("attack=mi_face", folder=folder)
    assert cold.result.ledger["queries"]["prepare"] == 30 and len(attack_with_a_model) == 1
    monkeypatch.setattr(Defense, "remembers", True)
    warm = make_cell("attack=mi_face", folder=folder)
    warm.rebuild = True
    assert warm.result.ledger == cold.result.ledger and len(attack_with_a_model) == 2
    assert torch.equal(warm.result.reconstruction.values, cold.result.reconstruction.values)


def test_a_budget_spent_while_preparing_leaves_failures(attack_with_a_model, make_cell, trained_folder):
    cell = make_cell("attack=mi_face", "query_budget=20", "evaluation.models=[mlp]", folder=trained_folder())
    assert bool(cell.result.reconstruction.missing.all()) and "budget of 20 queries" in cell.result.stopped
    hits = [one.value for one in cell.run().scores if one.metric == "attack_accuracy" and one.variant == "top1"]
    assert hits and set(hits) == {0.0}


@pytest.fixture
def prior_that_asks(monkeypatch):
    """WGAN-GP replaced by a prior whose training asks the victim 30 times; the card is read from the source."""

    from mibench.priors.wgan_gp import WganGp

    trainings = []

    def train(self, network, data, seed, device):
        if data.view is None:
            return
        trainings.append(data.view.spec.classes)
        with torch.no_grad():
            network.seed_map[0].weight += 1e-3 * data.view.logits(data.public.x[:30]).mean()

    monkeypatch.setattr(WganGp, "train", train)
    plans = plan_cell(compose(["attack=gmi", "budget=smoke"])).cards
    card = dataclasses.replace(plans.prior, asks="white_box")
    monkeypatch.setattr(WganGp, "card", card)

    def asking(cell):
        cell.plan = dataclasses.replace(cell.plan, cards=dataclasses.replace(cell.plan.cards, prior=card))
        return cell

    return asking, trainings


def test_a_prior_that_asks_is_made_for_each_victim_and_its_queries_are_the_attacks(
    prior_that_asks, make_cell, trained_folder
):
    asking, trainings = prior_that_asks
    folder = trained_folder()
    cold = asking(make_cell("attack=gmi", folder=folder))
    plain = make_cell("attack=gmi", folder=trained_folder("plain")).result.ledger["queries"]
    assert cold.result.ledger["queries"] == {**plain, "prepare": 30} and len(trainings) == 1
    warm = asking(make_cell("attack=gmi", folder=folder))
    warm.rebuild = True
    assert warm.result.ledger == cold.result.ledger and len(trainings) == 1
    assert cold.control is not None and len(trainings) == 2, "the control's prior is its own"
    assert "prior:wgan_gp" in cold.knowledge.names()
    for one in (trained_folder("spent"), folder):  # where no prior is stored, and where it is already
        spent = asking(make_cell("attack=gmi", "query_budget=20", folder=one))
        assert bool(spent.result.reconstruction.missing.all()) and "budget of 20 queries" in spent.result.stopped
        assert sum(spent.result.ledger["queries"].values()) <= 20
