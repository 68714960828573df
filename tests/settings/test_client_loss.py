"""Who is granted the clients' loss gets no data with it: the objects that it reaches are walked."""

import dataclasses
import functools
import types

import pytest
import torch

from mibench.access import Ledger
from mibench.card import AttackCard
from mibench.defenses.ats import Ats
from mibench.defenses.bido import Bido
from mibench.defenses.mid import Mid
from mibench.defenses.none import NoDefense
from mibench.defenses.stack import Stack
from mibench.defenses.vrm_mixup import VrmMixup
from mibench.settings.federated import Federated

ATTACKER = AttackCard(
    name="a", title="", modalities=("image",), family="", task="instance", access=("gradients",), uses=("defense_loss",)
)

OPAQUE = (type, types.ModuleType, str, bytes, int, float, torch.dtype, torch.device)


def reached(thing, seen):
    """Yields all tensors that are reached from a thing by attributes, entries, closures and bound arguments."""
    if id(thing) in seen or isinstance(thing, OPAQUE):
        return
    seen[id(thing)] = thing
    if isinstance(thing, torch.Tensor):
        yield thing
    inner = []
    if isinstance(thing, dict):
        inner += [*thing, *thing.values()]
    elif isinstance(thing, list | tuple | set | frozenset):
        inner += list(thing)
    elif isinstance(thing, types.MethodType):
        inner += [thing.__self__, thing.__func__]
    elif isinstance(thing, functools.partial):
        inner += [thing.func, thing.args, thing.keywords]
    elif isinstance(thing, types.FunctionType):
        inner += [cell.cell_contents for cell in thing.__closure__ or ()] + list(thing.__defaults__ or ())
    inner += list(getattr(thing, "__dict__", {}).values())
    for one in inner:
        yield from reached(one, seen)


def private(thing, examples):
    """Whether an input of ``examples`` is reached from a thing."""
    rows = {row.numpy().tobytes() for row in examples.x}
    size = examples.x[0].numel()
    for tensor in reached(thing, {}):
        flat = tensor.detach().cpu().float().flatten()
        if len(flat) and len(flat) % size == 0 and any(one.numpy().tobytes() in rows for one in flat.split(size)):
            return True
    return False


@pytest.mark.parametrize(
    "defense",
    [
        NoDefense(),
        VrmMixup(),
        Bido(a1=0.5),
        Mid(),
        Ats(policy="3-1-7"),
        Stack(parts=[VrmMixup(), Bido(a1=0.5)]),
    ],
    ids=lambda one: one.card.name,
)
def test_the_clients_loss_holds_no_private_data(make_scene, defense):
    scene = make_scene(defense=defense)
    setting, population = Federated(batch_size=2, clients=4), scene.split.private
    victim = setting.train(scene, population, "victim")
    seen = setting.observe(scene, victim, population, "gradients", 2, Ledger())
    grants = {"local_training": True, "buffers": True, "defense_loss": True}
    view = seen.view.limited(grants, ATTACKER)
    assert view.client_loss is not None and view.loss(seen.secret.x, seen.secret.y).isfinite()
    assert not private(view, population.train)
    leaky = dataclasses.replace(view, client_loss=lambda model, x, y: scene.defense.loss((model, x, y)))
    assert private(leaky, population.train), "the walk finds what a closure over the scene holds"
    if defense.card.name == "vrm_mixup":
        kept = dataclasses.replace(view, client_loss=defense.loss)
        assert private(kept, population.train), "and what the defense has remembered of a client"
