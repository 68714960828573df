"""No attack reads private inputs, true labels or an evaluation model: poisoning them changes nothing it returns."""

import dataclasses

import pytest
import torch

from mibench.data import Examples
from mibench.datasets.digits import Digits
from mibench.errors import UserError
from mibench.planning.catalogue import entries
from mibench.planning.composition import build

ATTACKS = [one.name for one in entries("attack")]


def cell_for(name, make_cell, request):
    (card,) = (one.card for one in entries("attack") if one.name == name)
    if "tabular" in card.modalities and "image" not in card.modalities:
        root = request.getfixturevalue("data_root")
        return make_cell(f"attack={name}", "dataset=bank_marketing", f"paths.data={root}")
    return make_cell(f"attack={name}")


def answer(cell, poison):
    """Runs the attack on a fresh view; with ``poison``, after every private tensor has been overwritten in place."""
    view, secret = cell.observation.view, cell.observation.secret
    (knowledge, _), goal = cell.knowledge_of(cell.victim, cell.split.private, view), cell.goal
    if poison:
        private = cell.split.private
        for examples in [private.train, private.test, *([] if secret is None else [secret])]:
            examples.x.fill_(float("nan"))
            examples.y.fill_(-1)
    method = build(cell.config["attack"])
    return method(view, knowledge, goal, seed=0).reconstruction


@pytest.mark.parametrize("name", ATTACKS)
def test_poisoned_private_data_change_no_answer(name, make_cell, request, monkeypatch):
    clean = answer(cell_for(name, make_cell, request), poison=False)

    def refuse(*_args, **_options):
        raise AssertionError("an attack asked for an evaluation model")

    monkeypatch.setattr("mibench.running.stage.train_evaluator", refuse)
    poisoned = answer(cell_for(name, make_cell, request), poison=True)
    assert torch.equal(clean.values, poisoned.values)
    assert (clean.labels is None) == (poisoned.labels is None)
    if clean.labels is not None:
        assert torch.equal(clean.labels, poisoned.labels)


def test_the_check_catches_an_attack_that_peeks(make_cell, monkeypatch):
    """An attack that keeps a reference to private images returns them, and the poison shows."""
    from mibench.attacks.random_prior import RandomPrior
    from mibench.tasks.base import Reconstruction

    cells = []

    def peek(self, view, knowledge, goal, networks):
        image = cells[-1].split.private.train.x[:1]
        return Reconstruction(image.expand(len(goal.labels), -1, -1, -1).nan_to_num(0.0), goal.labels)

    monkeypatch.setattr(RandomPrior, "reconstruct", peek)
    found = []
    for poison in (False, True):
        cells.append(make_cell("attack=random_prior"))
        found.append(answer(cells[-1], poison).values)
    assert not torch.equal(*found)


def test_priors_are_trained_on_public_images_alone(make_cell, tmp_path, monkeypatch):
    """The prior's training receives exactly the public images: none of them is a private one."""
    from mibench.priors.wgan_gp import WganGp

    seen = []
    monkeypatch.setattr(WganGp, "train", lambda self, network, data, seed, device: seen.append(data.public.x.clone()))
    cell = make_cell("attack=random_prior", folder=tmp_path)
    assert cell.knowledge.prior is not None
    private = {row.numpy().tobytes() for row in cell.split.private.train.x}
    assert torch.equal(seen[0], cell.split.public.x)
    assert not private & {row.numpy().tobytes() for row in seen[0]}


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_split_whose_public_images_hold_a_private_one_is_refused(part, make_cell, tmp_path, monkeypatch):
    """A loader that gives one private image away is caught before a prior or an attack sees it."""
    honest = Digits.load

    def leaky(self):
        split = honest(self)
        x = split.public.x.clone()
        x[7] = getattr(split.private, part).x[3]
        return dataclasses.replace(split, public=Examples(x, split.public.y))

    assert make_cell("attack=random_prior", folder=tmp_path).split.public is not None
    monkeypatch.setattr(Digits, "load", leaky)
    with pytest.raises(UserError, match=r"1 of the \d+ public images \(the first is number 7\) are private ones too"):
        make_cell("attack=random_prior", folder=tmp_path).split  # noqa: B018


@pytest.mark.parametrize("name", ATTACKS)
def test_what_the_attacker_holds_shares_no_memory_with_private_data(name, make_cell, request):
    cell = cell_for(name, make_cell, request)
    knowledge = cell.knowledge
    held = [] if knowledge.public_data is None else [knowledge.public_data.x]
    for fact in knowledge.facts.values():
        held += fact if isinstance(fact, list) else [fact]
    held += [value for value in vars(cell.goal).values() if isinstance(value, torch.Tensor)]
    private = {part.untyped_storage().data_ptr() for part in (cell.split.private.train.x, cell.split.private.test.x)}
    assert not private & {tensor.untyped_storage().data_ptr() for tensor in held}
