"""What every attack of the catalogue keeps, whatever it does."""

import copy

import pytest
import torch

from mibench.attacks.base import Attack
from mibench.planning.catalogue import entries
from mibench.planning.composition import build

ATTACKS = {entry.name: entry.card for entry in entries("attack")}


@pytest.fixture(params=sorted(ATTACKS))
def compose_cell(request, make_cell):
    """Composes a small cell of one attack on a dataset that suits it: ``compose_cell("query_budget=1")``."""
    card = ATTACKS[request.param]
    overrides = [f"attack={request.param}"]
    if "image" in card.modalities:
        overrides += ["dataset=digits", "dataset.size=8"]
    elif "tabular" in card.modalities:
        overrides += ["dataset=bank_marketing", f"paths.data={request.getfixturevalue('data_root')}"]
    else:
        pytest.skip(f"no small dataset holds {card.modalities} data")
    return lambda *more: make_cell(*overrides, *more)


def brought(cell):
    """Returns what the attacker brings; a prior that asks the victim is made with a view of its own."""
    return cell.knowledge_of(cell.victim, cell.split.private, cell.observe(cell.victim, cell.split.private).view)[0]


def run(cell, knowledge, seed=0):
    """Runs the attack once on a fresh view and returns the view with the result; the base class checks the result."""
    view = cell.observe(cell.victim, cell.split.private).view
    return view, build(cell.config["attack"])(view, knowledge, cell.goal, seed=seed)


def answers(result):
    return [tensor for _, tensor in sorted(result.reconstruction.tensors().items())]


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(answers(one), answers(other), strict=True))


def test_attack_keeps_the_contract(compose_cell, monkeypatch):
    cell = compose_cell()
    knowledge = brought(cell)
    drawn = []
    draws = Attack.draws
    monkeypatch.setattr(Attack, "draws", lambda self, *names: drawn.append(names) or draws(self, *names))
    models = [cell.victim.model]
    before = [None if model is None else copy.deepcopy(model.state_dict()) for model in models]
    view, result = run(cell, knowledge)
    models.append(getattr(view, "model", None))
    before.append(before[0])

    assert not result.stopped
    assert not bool(result.reconstruction.missing.all())
    counted = sum(result.ledger["queries"].values())
    asks_nothing = cell.plan.access == "none" or cell.plan.cards.attack.encoder == "architecture"
    assert counted == 0 if asks_nothing else counted > 0

    for model, state in zip(models, before, strict=True):
        if model is not None:
            assert all(parameter.grad is None for parameter in model.parameters())
            assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())

    drawn_in_one_run = len(drawn)
    assert same(result, run(cell, knowledge)[1])
    if drawn_in_one_run and result.reconstruction.values.is_floating_point():
        assert not same(result, run(cell, knowledge, seed=1)[1])


def test_a_budget_of_one_query_leaves_a_valid_result(compose_cell):
    cell = compose_cell("query_budget=1")
    view, result = run(cell, brought(compose_cell()))
    assert view.ledger.queries <= 1
    assert len(result.reconstruction) == len(cell.task.blank(cell.goal, cell.split.spec))
    if result.stopped:
        assert "budget" in result.stopped
    else:
        assert view.ledger.queries == 0 or not bool(result.reconstruction.missing.all())
