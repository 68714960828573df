"""What every step of a white-box attack on images keeps: one batch of all targets and samples, and flat memory."""

import gc
from collections.abc import Mapping

import pytest
import torch
from live_bytes import LiveBytes

from mibench.attacks.base import Attack, ClassSearch
from mibench.attacks.mi_face import MiFace
from mibench.knowledge import Knowledge
from mibench.planning.catalogue import entries
from mibench.planning.composition import build
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal

WHITE_BOX = [
    entry.name
    for entry in entries("attack")
    if entry.card.task == "class" and "white_box" in entry.card.access and "image" in entry.card.modalities
]

#: Attacks that train a generator for every class, each on a batch of its own.
GENERATOR_PER_CLASS = {"patchmi"}

EARLY, LATE = 5, 12  # steps between which the memory must not grow; images are denoised after ten


def lengthened(node, steps):
    """Returns an attack's config, and that of the one it wraps, with every descent of this many steps."""
    return {
        key: lengthened(value, steps)
        if isinstance(value, Mapping)
        else steps
        if key == "iterations" or key.endswith("_steps")
        else value
        for key, value in node.items()
    }


def after_every_step(monkeypatch, do):
    """Calls ``do`` with the number of the step within its descent after every step that an attack takes."""
    steps = Attack.steps

    def watched(self, count, what=""):
        for step in steps(self, count, what):
            yield step
            do(step)

    monkeypatch.setattr(Attack, "steps", watched)


def calls_per_step(monkeypatch, view, run):
    """Returns the number of times that the victim was asked in each step."""
    calls, asked = [], []

    def note(*_):
        if torch.is_grad_enabled():
            asked.append(1)

    def close(_):
        calls.append(len(asked))
        asked.clear()

    with monkeypatch.context() as patch:
        after_every_step(patch, close)
        handle = view.model.normalise.register_forward_pre_hook(note)
        run()
        handle.remove()
    assert calls, "the attack takes its steps without self.steps"
    return calls


def growth(monkeypatch, run):
    """Returns by how many bytes the tensors alive after a late step exceed those after an early one, per descent."""
    early, late = [], []

    def note(step):
        if step in (EARLY, LATE):
            gc.collect()
            (early if step == EARLY else late).append(live.now)

    with monkeypatch.context() as patch, LiveBytes() as live:
        after_every_step(patch, note)
        run()
    assert late, "the attack takes its steps without self.steps"
    return [after - before for before, after in zip(early, late, strict=True)]


@pytest.fixture(params=WHITE_BOX)
def search(request, make_cell, few_steps):
    """Prepares an attack: ``search(steps)`` returns the victim's view and ``run(classes, samples)``."""
    cell = make_cell(f"attack={request.param}", "dataset=digits", "dataset.size=8", *few_steps(request.param))
    view = cell.observe(cell.victim, cell.split.private).view
    knowledge = cell.knowledge_of(cell.victim, cell.split.private, view)[0]

    def prepared(steps):
        attack = build(lengthened(cell.config["attack"], steps))
        networks = attack.trained(view, knowledge, 0)
        return view, lambda classes, samples: attack(
            view, knowledge, ClassGoal(torch.arange(classes), samples), seed=0, networks=networks
        )

    prepared.name = request.param
    return prepared


def test_all_targets_and_samples_are_one_batch(search, monkeypatch):
    view, run = search(3)
    few, more = (1, 1), (1 if search.name in GENERATOR_PER_CLASS else 3, 2)
    counts = [calls_per_step(monkeypatch, view, lambda goal=goal: run(*goal)) for goal in (few, more)]
    assert counts[0] == counts[1]


def test_memory_stays_flat(search, monkeypatch):
    _, run = search(LATE + 1)
    assert set(growth(monkeypatch, lambda: run(2, 2))) == {0}


class Wasteful(ClassSearch):
    """Descends one sample after the other and holds on to every loss with its graph."""

    card = MiFace.card

    def reconstruct(self, view, knowledge, goal, networks):
        x = torch.rand(len(goal.labels), *view.spec.shape)
        total = 0.0
        for _ in self.steps(LATE + 1):
            for i, label in enumerate(goal.labels):
                total = total + self.identify(view, x[i : i + 1].requires_grad_(True), label[None]).sum()
        return Reconstruction(x.detach(), goal.labels)


def test_a_wasteful_attack_is_seen(monkeypatch, trained_cnn, digits8, white_box):
    view = white_box(trained_cnn, digits8)

    def run(classes, samples):
        Wasteful()(view, Knowledge(), ClassGoal(torch.arange(classes), samples), seed=0)

    few, more = (calls_per_step(monkeypatch, view, lambda n=n: run(n, n)) for n in (1, 2))
    assert (few[0], more[0]) == (1, 4)
    assert growth(monkeypatch, lambda: run(2, 2))[0] > 0
