"""What every attack of the catalogue keeps, whatever it does: one clean, one poisoned and one other-seed run of each.

The poisoned run has the seed of the clean one, so that equal answers show both: that the seed decides, and that nothing
private was read.
"""

import copy

import pytest
import torch

from mibench.attacks.base import Attack
from mibench.errors import DatasetNotFoundError
from mibench.planning.catalogue import entries

ATTACKS = {entry.name: entry.card for entry in entries("attack")}
DATASETS = {entry.name: entry.card for entry in entries("dataset")}

#: The tables on which attacks of records are run, the first that has the truth of an attack's task.
TABLES = ("bank_marketing", "adult")


#: Short texts and an encoder that reads them in seconds, few records, and a graph network that has learned something.
SMALL_TEXTS = [
    "dataset.length=10", "dataset.private_train=60", "dataset.private_test=20", "dataset.public=300", "target.depth=1",
    "target.width=16", "target.heads=2", "target.hidden=32",
]  # fmt: skip
SMALL_TABLE = [
    "dataset.private_train=400", "dataset.private_test=100", "dataset.public=400", "dataset.held_out_train=200",
    "dataset.held_out_test=100", "budget.records=20", "target.recipe.epochs=2", "target.recipe.min_steps=0",
]  # fmt: skip
SMALL_GRAPH = ["target.recipe.epochs=20"]


@pytest.fixture
def compose_cell(make_cell, few_steps, request):
    """Composes a small cell of an attack on a dataset that suits it: ``compose_cell("gmi")``."""

    def make(name):
        card = ATTACKS[name]
        if "image" in card.modalities:
            return make_cell(f"attack={name}", "dataset=digits", "dataset.size=8", *few_steps(name))
        if "tabular" in card.modalities:
            root = request.getfixturevalue("data_root")
            table = next(one for one in TABLES if card.task in DATASETS[one].tasks)
            cell = make_cell(f"attack={name}", f"dataset={table}", f"paths.data={root}", *SMALL_TABLE, *few_steps(name))
            try:
                assert cell.split
            except DatasetNotFoundError as missing:
                pytest.skip(str(missing))
            return cell
        if "text" in card.modalities:
            pytest.importorskip("tokenizers", reason="pip install 'mibench[text]'")
            root = request.getfixturevalue("data_root")
            if not (root / "SST-2").is_dir():
                pytest.skip(f"{root} holds no SST-2")
            return make_cell(f"attack={name}", "dataset=sst2", f"paths.data={root}", *SMALL_TEXTS, *few_steps(name))
        if "graph" in card.modalities:
            return request.getfixturevalue("graph_cell")(f"attack={name}", *SMALL_GRAPH, *few_steps(name))
        return pytest.skip(f"no small dataset holds {card.modalities} data")

    return make


def poison(cell, observation):
    """Overwrites every private tensor in place, those behind the observation that is attacked too."""
    private, secret = cell.split.private, observation.secret
    for examples in [private.train, private.test, *([] if secret is None else [secret])]:
        examples.x.fill_(float("nan") if examples.x.is_floating_point() else 0)
        examples.y.fill_(-1)
    if private.graph is not None:
        private.graph.edges.fill_(0)


def answers(result):
    return [tensor for _, tensor in sorted(result.reconstruction.tensors().items())]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(answers(one), answers(other), strict=True))


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_attack_keeps_the_contract(name, compose_cell, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("an attack asked for an evaluation model")

    monkeypatch.setattr("mibench.running.stage.train_evaluator", refuse)
    cell = compose_cell(name)
    clean, seeded, poor = (cell.observe(cell.victim, cell.split.private).view for _ in range(3))
    poisoned = cell.observe(cell.victim, cell.split.private)
    known = cell.knowledge_of(cell.victim, cell.split.private, cell.observation.view)[0]
    shares_no_memory(cell, known)

    drawn, draws = [], Attack.draws
    monkeypatch.setattr(Attack, "draws", lambda self, *names: drawn.append(names) or draws(self, *names))
    models = [model for model in (cell.victim.model, getattr(clean, "model", None)) if model is not None]
    before = [copy.deepcopy(model.state_dict()) for model in models]
    result = cell.method(clean, known, cell.goal, seed=0)
    assert not result.stopped and not bool(result.reconstruction.missing.all())
    counted = sum(result.ledger["queries"].values())
    card = cell.plan.cards.attack
    asks_nothing = cell.plan.access == "none" or card.encoder == "architecture" or card.plants
    assert counted == 0 if asks_nothing else counted > 0
    for model, state in zip(models, before, strict=True):
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    if drawn and result.reconstruction.values.is_floating_point():
        assert not same(result, cell.method(seeded, known, cell.goal, seed=1)), "no draw depends on the seed"

    poor.ledger.budget = 1
    stopped = cell.method(poor, known, cell.goal, seed=0)
    assert poor.ledger.queries <= 1
    assert len(stopped.reconstruction) == len(cell.task.blank(cell.goal, cell.split.spec))
    if stopped.stopped:
        assert "budget" in stopped.stopped
    else:
        assert poor.ledger.queries == 0 or not bool(stopped.reconstruction.missing.all())

    poison(cell, poisoned)
    assert same(result, cell.method(poisoned.view, known, cell.goal, seed=0)), "a private tensor changed the answer"


def shares_no_memory(cell, known):
    """Nothing that the attacker holds lies where private data lie."""
    held = [] if known.public_data is None else [known.public_data.x]
    for fact in known.facts.values():
        held += fact if isinstance(fact, list) else [fact]
    held += [value for value in vars(cell.goal).values() if isinstance(value, torch.Tensor)]
    population = cell.split.private
    parts = [population.train.x, population.test.x, *([] if population.graph is None else [population.graph.edges])]
    private = {part.untyped_storage().data_ptr() for part in parts}
    assert not private & {tensor.untyped_storage().data_ptr() for tensor in held}


def test_an_attack_that_peeks_is_found(compose_cell, monkeypatch):
    """An attack that keeps a reference to private images returns them, and the poison shows."""
    from mibench.attacks.random_prior import RandomPrior
    from mibench.tasks.base import Reconstruction

    cells = []

    def peek(self, view, knowledge, goal, networks):
        image = cells[-1].split.private.train.x[:1]
        return Reconstruction(image.expand(len(goal.labels), -1, -1, -1).nan_to_num(0.0), goal.labels)

    monkeypatch.setattr(RandomPrior, "reconstruct", peek)
    cells.append(compose_cell("random_prior"))
    found = []
    for _ in range(2):
        found.append(cells[-1].method(cells[-1].observation.view, cells[-1].knowledge, cells[-1].goal, seed=0))
        poison(cells[-1], cells[-1].observation)
    assert not same(*found)
