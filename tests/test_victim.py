"""A victim that is no torch module: it answers, it is stored as tensors, and it has nothing else to show."""

import pytest
import torch

from mibench.access import Ledger
from mibench.card import DefenseCard
from mibench.data import Population
from mibench.defenses.base import Defense
from mibench.errors import UserError
from mibench.settings.base import Scene
from mibench.settings.central import Central
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.mlp import Mlp
from mibench.training import Recipe


class Frequencies(Defense):
    """Answers with the frequencies of the classes, whatever it is asked."""

    card = DefenseCard(
        name="frequencies", title="", modalities=("image",), hooks=("training", "output"), affects=("scores",),
        replaces="table of frequencies",
    )  # fmt: skip
    trained = 0

    def fit(self, training):
        type(self).trained += 1
        self.table = training.data.y.bincount() / len(training.data)

    def predict_proba(self, x):
        return self.table.expand(len(x), -1)

    def output(self, probabilities):
        return probabilities.square()

    def state(self):
        return {"table": self.table}

    def restore(self, state):
        self.table = state["table"]


@pytest.fixture
def blueprint():
    return Blueprint("mlp", lambda spec: Mlp(spec=spec, hidden=(4,)), Recipe(), {})


def victim_of(defense, blueprint, digits8, workshop):
    return train_central(blueprint, digits8.private, digits8, defense, workshop, {}, 0, "victim")


def test_it_answers_fresh_and_from_the_store_behind_its_output_hook(blueprint, digits8, workshop):
    x, y = digits8.private.test.x[:3], digits8.private.train.y
    Frequencies.trained = 0
    for victim in (victim_of(Frequencies(), blueprint, digits8, workshop) for _ in range(2)):
        assert victim.model is None
        assert torch.equal(victim.predict_proba(x), (y.bincount() / len(y)).square().expand(3, -1))
    assert Frequencies.trained == 1


def test_queries_are_granted_and_everything_else_is_refused_in_one_sentence(blueprint, digits8, workshop):
    victim = victim_of(Frequencies(), blueprint, digits8, workshop)
    scene = Scene(split=digits8, blueprint=blueprint, defense=victim.defense, defense_key={}, workshop=workshop, seed=0)

    def view(access):
        population = Population(digits8.private.train, digits8.private.test)
        return Central().observe(scene, victim, population, access, 0, Ledger()).view

    x = digits8.public.x[:4]
    assert view("scores").query(x).shape == (4, 5)
    assert view("labels").query(x).shape == (4,)
    with pytest.raises(UserError, match="no torch module") as refusal:
        view("white_box")
    assert str(refusal.value).count(". ") == 0
    with pytest.raises(UserError, match="no torch module"):
        view("explanations").query(x)


def test_a_defense_that_returns_no_module_must_answer_itself(blueprint, digits8, workshop):
    class Mute(Frequencies):
        predict_proba = Defense.predict_proba

    with pytest.raises(NotImplementedError, match="Mute"):
        victim_of(Mute(), blueprint, digits8, workshop).predict_proba(digits8.public.x[:1])
