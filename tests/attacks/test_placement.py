"""What would meet on two devices where the victim is on a GPU, found without one, by ``two_devices.TwoDevices``.

The white-box loops of ``white_box_loops.py`` run with small networks; attacks of images at every access run as their
cells run them, on a view of the victim (slow). Left out is of the priors ``stylegan2_ada``, which comes trained. On a
GPU ``scripts/gpu_check.sh`` runs cells of all.
"""

import dataclasses

import pytest
import torch
from torch.utils._pytree import tree_leaves
from two_devices import DEVICE, TwoDevices
from white_box_loops import ATTACKS, PRIORS

from mibench.attacks.mi_face import MiFace
from mibench.data import Examples
from mibench.knowledge import Knowledge
from mibench.planning.catalogue import entries
from mibench.priors.base import PriorData
from mibench.tasks.class_ import ClassGoal


@pytest.fixture
def placed_view(trained_cnn, digits8, white_box):
    return dataclasses.replace(white_box(trained_cnn, digits8), device=DEVICE)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_mixes_no_devices(name, digits8, placed_view):
    make, prior = ATTACKS[name]
    goal = ClassGoal(torch.arange(3), samples=2)
    network = None if prior is None else PRIORS[prior].network(digits8.spec).eval().requires_grad_(False)
    with TwoDevices(goal.targets):
        make(2)(placed_view, Knowledge(digits8.public, network), goal, seed=0)


@pytest.mark.parametrize("name", PRIORS)
def test_the_training_of_a_prior_mixes_no_devices(name, digits8, placed_view):
    public = Examples(digits8.public.x[:16], digits8.public.y[:16])
    data, network = PriorData(public, digits8.spec, placed_view), PRIORS[name].network(digits8.spec)
    with TwoDevices():
        PRIORS[name].train(network, data, 0, DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize("name", [entry.name for entry in entries("attack") if "image" in entry.card.modalities])
def test_an_attack_in_its_cell_mixes_no_devices(name, make_cell, few_steps):
    cell = make_cell(f"attack={name}", "dataset=digits", "dataset.size=8", *few_steps(name))
    cell.__dict__["workshop"] = dataclasses.replace(cell.workshop, device=DEVICE)
    view = cell.observe(cell.victim, cell.split.private).view
    known = cell.knowledge_of(cell.victim, cell.split.private, cell.observation.view)[0]
    assert view.device == DEVICE
    granted = tree_leaves([list(known.facts.values()), list(vars(cell.goal).values())])
    with TwoDevices(*(one for one in granted if isinstance(one, torch.Tensor))):
        networks = cell.method.trained(view, known, 0)
        result = cell.method(view, known, cell.goal, seed=0, networks=networks)
    assert not result.stopped


class Misplaced(MiFace):
    """Starts from what lies on the host."""

    def images(self, x, networks):
        return x + torch.zeros(x.shape)


def test_what_is_left_on_the_host_is_found(placed_view):
    goal = ClassGoal(torch.arange(3), samples=2)
    with pytest.raises(AssertionError, match="mixes the host and the device"), TwoDevices(goal.targets):
        Misplaced(iterations=2)(placed_view, Knowledge(), goal, seed=0)
