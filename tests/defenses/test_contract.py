"""What holds for every defense of the catalogue."""

import copy
import itertools
from functools import cache

import pytest
import torch

from mibench.card import HOOKS, HOOKS_ON_PATH
from mibench.defenses.base import Defense
from mibench.planning.catalogue import entries
from mibench.planning.composition import build, compose, plain, with_parts
from mibench.planning.grid import cells_of, plan_cells, read_grid
from mibench.planning.plan import plan_cell
from mibench.running.cell import Cell
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.cnn import Cnn
from mibench.training import Recipe, is_correct

ENTRIES = {entry.name: entry for entry in entries("defense")}
TRAINED = [name for name, entry in ENTRIES.items() if "image" in entry.card.modalities and entry.card.trains]
#: The options at which a defense that takes part in training must do nothing at all.
IDLE = {"bido": {"a1": 0.0, "a2": 0.0}, "bido_coco": {"a1": 0.0, "a2": 0.0}}


@cache
def options_of(name):
    cfg = compose([f"defense={name}", "budget=smoke"])
    return with_parts(plain(cfg.defense), cfg)


def made(name, **options):
    return build({**copy.deepcopy(options_of(name)), **options})


def victim_of(defense, split, workshop, key):
    blueprint = Blueprint("cnn", lambda spec: Cnn(spec=spec, width=4), Recipe(epochs=2, batch_size=64), {})
    return train_central(blueprint, split.private, split, defense, workshop, {"defense": key}, 0, "victim")


def unreachable(card):
    """The accesses on the card whose attacker meets none of its hooks."""
    return [access for access in card.affects if not set(card.hooks) & set(HOOKS_ON_PATH[access])]


@pytest.mark.parametrize("name", ENTRIES)
def test_the_card_declares_the_hooks_that_the_class_overrides(name):
    assert sorted(ENTRIES[name].card.hooks, key=HOOKS.index) == list(made(name).hooks)


@pytest.mark.parametrize("name", ENTRIES)
def test_it_affects_only_accesses_that_meet_one_of_its_hooks(name):
    card = ENTRIES[name].card
    assert not unreachable(card)
    assert bool(card.affects) == bool(card.hooks)


@pytest.mark.parametrize("name", ENTRIES)
def test_its_strength_is_one_of_its_options(name):
    entry = ENTRIES[name]
    assert not entry.card.strength or entry.card.strength in entry.node


@pytest.mark.parametrize("name", ENTRIES)
def test_its_card_says_which_values_of_its_strength_are_stronger(name):
    """A direction wherever there is a strength, and levels that go that way."""
    card = ENTRIES[name].card
    assert bool(card.stronger) == bool(card.strength)
    steps = [after - before for before, after in itertools.pairwise(card.levels)]
    assert all(step > 0 if card.stronger == "higher" else step < 0 for step in steps)


def test_directions_are_those_of_what_the_options_do():
    """Of options that have no levels, or whose name says the opposite."""
    said = {
        "dgc": "lower",
        "gradient_pruning": "lower",
        "dgp": "higher",
        "soteria": "higher",
        "gradient_noise": "higher",
    }
    said |= {"gradient_clipping": "higher", "crafter": "lower", "top_k": "lower", "query_monitor": "lower"}
    said |= {"dp_health": "lower", "augmented_dp": "lower", "score_noise": "higher", "neg_ls": "lower", "none": ""}
    assert {name: ENTRIES[name].card.stronger for name in said} == said


@pytest.mark.parametrize("name", [name for name, entry in ENTRIES.items() if entry.card.adaptive])
def test_the_attackers_who_know_of_it_meet_it(name):
    grid = read_grid({"name": "mine", "strengths": False})
    cells = [
        cell for words in ENTRIES[name].card.adaptive for cell in cells_of(grid, [[f"defense={name}", *words.split()]])
    ]
    assert cells and not [cell.reason for cell in plan_cells(cells) if cell.reason]
    for cell in cells:
        Cell(plan_cell(compose(list(cell))))  # builds every component, and refuses an option that does nothing


@pytest.mark.parametrize("name", ENTRIES)
def test_only_a_defense_of_answers_or_features_learns_after_training(name):
    learns = made(name).learns
    assert not learns or set(ENTRIES[name].card.hooks) & {"output", "features"}
    assert learns or not made(name).reserve_share, "a reserve that nothing learns from"


@pytest.mark.parametrize("name", ENTRIES)
def test_a_finished_model_is_promised_hooks_that_serve(name):
    card = ENTRIES[name].card
    assert not set(card.finished) & {"data", "architecture", "training"} and not (card.finished and not card.trains)
    assert card.on_finished == (card.finished if card.trains else card.hooks)


def test_a_card_that_claims_too_much_is_found():
    from mibench.card import DefenseCard

    class Silent(Defense):
        card = DefenseCard(name="silent", title="", modalities=("image",), hooks=("output",), affects=("white_box",))

    assert unreachable(Silent.card) == ["white_box"]
    assert list(Silent.overridden()) != list(Silent.card.hooks)


@pytest.mark.parametrize("name", IDLE)
def test_an_idle_defense_leaves_training_bit_by_bit_as_it_is(name, digits8, workshop):
    x = digits8.private.test.x
    plain_victim = victim_of(Defense(), digits8, workshop, "none").predict_proba(x)
    assert torch.equal(victim_of(made(name, **IDLE[name]), digits8, workshop, "idle").predict_proba(x), plain_victim)
    assert not torch.equal(victim_of(made(name), digits8, workshop, "active").predict_proba(x), plain_victim)


class Counting(Defense):
    """Learns how many examples of its spare data the finished model is right on, and how it did so."""

    def __init__(self, share=0.0):
        self.reserve_share = share
        self.right, self.seen = torch.zeros(1), []

    def output(self, probabilities):
        return probabilities

    def learn(self, model, context):
        self.seen.append(context.data)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        self.right = torch.rand(1) + is_correct(model.predict_proba, context.data.spare).sum()

    def state(self):
        return {"right": self.right}

    def restore(self, state):
        self.right = state.get("right", self.right)

    def facts(self):
        return {"right": float(self.right)}


def test_the_reserve_is_a_share_of_every_class_that_the_target_never_sees(digits8, workshop):
    first, again = Counting(0.25), Counting(0.25)
    victim = victim_of(first, digits8, workshop, {})
    data, train = first.seen[0], digits8.private.train
    everything = {row.numpy().tobytes() for row in train.x}
    seen, kept = ({row.numpy().tobytes() for row in part.x} for part in (data.train, data.reserve))
    assert seen | kept == everything and len(data.train) + len(data.reserve) == len(train)
    assert data.reserve.y.bincount().tolist() == (train.y.bincount() // 4).tolist()
    reserved = victim_of(again, digits8, workshop, {})
    assert not again.seen and torch.equal(again.right, first.right), "the second one has it from the store"
    assert victim.reported == reserved.reported == {"right": float(first.right)}
    x = digits8.private.test.x
    assert torch.equal(victim.predict_proba(x), reserved.predict_proba(x))
    assert not torch.equal(victim.predict_proba(x), victim_of(Defense(), digits8, workshop, {}).predict_proba(x))
    assert all(parameter.requires_grad for parameter in victim.module.parameters())


def test_a_defense_that_keeps_nothing_back_shares_the_undefended_victim(digits8, workshop):
    defense = Counting()
    victim = victim_of(defense, digits8, workshop, {})
    assert len(defense.seen[0].reserve) == 0 and len(defense.seen[0].spare) == len(digits8.private.train)
    assert victim.key == victim_of(Defense(), digits8, workshop, {}).key
    assert len(list((workshop.store.root / "victim").glob("*/manifest.json"))) == 1


@pytest.mark.parametrize("name", TRAINED)
def test_its_victim_answers_alike_fresh_and_from_the_store(name, digits8, workshop):
    """The second defense object has trained nothing: all it knows comes out of the store."""
    first = victim_of(made(name), digits8, workshop, name)
    second = victim_of(made(name), digits8, workshop, name)
    x = digits8.private.test.x
    assert torch.equal(first.predict_proba(x), second.predict_proba(x))
    assert first.reported == second.reported
    assert is_correct(first.predict_proba, digits8.private.test).float().mean() >= 0.15  # it answers at all
