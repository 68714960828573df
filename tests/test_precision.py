"""What computes in bfloat16 and what never does, seen by the type that every layer of every network gives."""

import json
from collections import defaultdict
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.utils._python_dispatch import TorchDispatchMode

from mibench.access import ExplanationsView, FeaturesView
from mibench.attacks.families.lbfgs_search import LbfgsSearch
from mibench.attacks.gmi import Gmi
from mibench.attacks.mi_face import MiFaceDenoise
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.nn.style_layers import ModulatedConv
from mibench.precision import computing, has_bfloat16, laid_out, precision_key, widened
from mibench.priors.style_gan import StyleGan
from mibench.priors.wgan_gp import WganGp
from mibench.tasks.class_ import ClassGoal
from mibench.training import Training

CONF = Path(__file__).parent.parent / "conf"
CPU = torch.device("cpu")
HALF, FULL = {torch.bfloat16}, {torch.float32}
IMAGES = InputSpec("image", (3, 16, 16), classes=4)
GMI = ("attack=gmi", "prior.iterations=1", "prior.width=4", "attack.iterations=1", "target.recipe.epochs=1",
       "target.recipe.min_steps=0",
       "evaluation.models=[mlp]", "control=none", "metric=[attack_accuracy]")  # fmt: skip


#: The loops that are watched.
LOOPS = (
    (Training, "run", "training"),
    (WganGp, "train", "prior"),
    (Gmi, "reconstruct", "search"),
    (LbfgsSearch, "reconstruct", "search"),
    (MiFaceDenoise, "prepare", "own networks"),
)


@pytest.fixture
def types(monkeypatch):
    """The types that layers gave, by the loop that ran and by whether gradients were on; ``""`` is outside of loops."""
    found, running, last = defaultdict(set), [], defaultdict(set)

    def watch(kind, method, name):
        inner = kind.__dict__[method]

        def watched(self, *given, **named):
            running.append(name)
            try:
                return inner(self, *given, **named)
            finally:
                running.pop()

        monkeypatch.setattr(kind, method, watched)

    for kind, method, name in LOOPS:
        watch(kind, method, name)

    def note(module, _inputs, output):
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            name = running[-1] if running else ""
            found[name].add(output.dtype)
            if isinstance(module, nn.Conv2d) and module.weight.shape[1] > 1:
                last[name].add(module.weight.is_contiguous(memory_format=torch.channels_last))

    handle = register_module_forward_hook(note)
    found["laid out"] = last
    yield found
    handle.remove()


def keys(folder):
    """The keys of every artifact by kind."""
    stored = defaultdict(dict)
    for file in folder.glob("store/*/*/manifest.json"):
        stored[file.parent.parent.name][file.parent.name] = json.loads(file.read_text())["key"]
    return stored


def test_a_cell_in_bfloat16_computes_in_it_in_every_loop_and_reuses_nothing_in_float32(make_cell, tmp_path, types):
    _ = make_cell(*GMI, folder=tmp_path).result
    full = keys(tmp_path)
    assert types["training"] == types["prior"] == types["search"] == FULL, "the default"
    assert not any(True in seen for seen in types["laid out"].values())
    types["laid out"].clear()
    types.update({name: set() for name in ("training", "prior", "search", "")})

    made = make_cell(*GMI, "precision=bfloat16", folder=tmp_path)
    made.run()
    assert types["training"] == types["prior"] == types["search"] == HALF
    assert types["laid out"]["training"] == types["laid out"]["search"] == {True}
    assert types["laid out"]["prior"] == {False}, "where it would gain nothing"
    assert types[""] == FULL, "what metrics compute"
    assert made.result.reconstruction.values.dtype == torch.float32
    both = keys(tmp_path)
    for kind in ("victim", "prior", "reconstruction"):
        assert len(full[kind]) == 1, kind
        new = [key for name, key in both[kind].items() if name not in full[kind]]
        assert len(new) == (2 if kind == "victim" else 1), "with the evaluation model"
        assert all("precision_revision" in str(key) for key in new)
        assert not any("precision_revision" in str(key) for key in full[kind].values())


def test_an_attack_trains_networks_of_its_own_in_it_too(types, trained_cnn, digits8, white_box):
    attack, view = MiFaceDenoise(training_steps=1, hidden=(8,)), white_box(trained_cnn, digits8)
    networks = attack.trained(view, Knowledge(digits8.public), 0, "bfloat16")
    assert types["own networks"] == HALF and networks["decoder"][0].weight.dtype == torch.float32
    attack.trained(view, Knowledge(digits8.public), 0)
    assert types["own networks"] == HALF | FULL


def test_a_service_answers_in_float32_whoever_asks(trained_cnn, digits8, white_box, types):
    x, view = digits8.public.x[:4], white_box(trained_cnn, digits8)
    scores = view.narrow()
    spec, ledger, ask = view.spec, view.ledger, trained_cnn.client
    explained = ExplanationsView(spec, ledger, CPU, trained_cnn, _explain=lambda x: (trained_cnn(x), x))
    sent = FeaturesView.of(trained_cnn, ask(x)[None].detach(), spec, ledger, CPU, ask=ask, untrained=lambda _: ask)
    types.clear()
    with computing("bfloat16", CPU):
        answers = scores.query(x)
        for service in (explained, sent):
            service.query(x)
    assert types[""] == FULL and torch.equal(answers, scores.query(x))


def test_gradient_matching_stays_in_float32_to_the_bit(make_cell, tmp_path, types):
    cell = ("attack=dlg", "attack.iterations=3", "attack.restarts=1", "setting.pooled_epochs=0")
    full, half = (
        make_cell(*cell, f"precision={name}", folder=tmp_path).result.reconstruction for name in ("float32", "bfloat16")
    )
    assert types["search"] | types[""] == FULL
    assert len(keys(tmp_path)["reconstruction"]) == 2 and torch.equal(full.values, half.values)


def test_the_grid_of_precisions_attacks_every_private_person_and_all_have_a_control():
    grid, faces = (
        yaml.safe_load((CONF / name).read_text()) for name in ("grid/precision.yaml", "dataset/att_faces.yaml")
    )
    (targets,) = (int(word.partition("=")[2]) for word in grid["fixed"] if word.startswith("budget.targets="))
    assert targets >= faces["private_people"] and faces["held_out_people"] >= faces["private_people"]


def test_nothing_is_told_apart_at_float32():
    assert precision_key("float32") == {}
    assert precision_key("bfloat16") == {"precision": "bfloat16", "precision_revision": 3}


def product():
    return (torch.ones(2, 2) @ torch.ones(2, 2)).dtype


def test_float32_inside_bfloat16_is_float32_and_ends_with_its_block():
    assert product() == torch.float32
    with computing("bfloat16", CPU):
        assert product() == torch.bfloat16
        with computing("float32", CPU):
            assert product() == torch.float32
        assert product() == torch.bfloat16
    assert product() == torch.float32


def test_weights_that_change_inside_a_block_are_those_that_the_next_product_takes():
    layer = nn.Linear(1, 1, bias=False)
    with computing("bfloat16", CPU, layer):
        layer(torch.ones(1, 1))
        with torch.no_grad():
            layer.weight.fill_(3.0)
        assert layer(torch.ones(1, 1)).detach().item() == 3.0


class CountedCasts(TorchDispatchMode):
    """Counts the casts of tensors of some shapes to bfloat16."""

    def __init__(self, shapes):
        super().__init__()
        self.shapes, self.count = shapes, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._to_copy.default and kwargs.get("dtype") == torch.bfloat16:
            self.count += tuple(args[0].shape) in self.shapes
        return func(*args, **kwargs)


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Flatten(), nn.Linear(5 * 36, 7)).eval()


SHAPES = {(5, 3, 3, 3), (5,), (7, 180), (7,)}


def test_frozen_weights_are_cast_once_and_those_in_training_at_every_step():
    x = torch.rand(2, 3, 8, 8)
    for frozen, casts in ((True, 4), (False, 3 * 4)):
        network = small_network().requires_grad_(not frozen)
        with CountedCasts(SHAPES) as counted, computing("bfloat16", CPU, network):
            for _ in range(3):
                network(x)
        assert counted.count == casts


def test_frozen_weights_are_bfloat16_inside_a_block_alone_though_it_breaks():
    network = small_network().requires_grad_(False)
    before, values = dict(network.named_parameters()), {k: v.clone() for k, v in network.state_dict().items()}
    layers = {"0.weight", "0.bias", "3.weight", "3.bias"}
    with pytest.raises(RuntimeError, match="broken"), computing("bfloat16", CPU, network):
        inside = dict(network.named_parameters())
        assert {name for name, one in inside.items() if one.dtype == torch.bfloat16} == layers
        assert inside["0.weight"].is_contiguous(memory_format=torch.channels_last)
        assert network[1].running_mean.dtype == torch.float32
        with computing("float32", CPU):
            assert all(one is before[name] for name, one in network.named_parameters())
            assert network(torch.rand(2, 3, 8, 8)).dtype == torch.float32
        assert all(one is inside[name] for name, one in network.named_parameters())
        raise RuntimeError("broken")
    assert all(one is before[name] for name, one in network.named_parameters())
    assert all(torch.equal(one, values[name]) for name, one in network.state_dict().items())


def test_weights_cast_once_give_what_those_cast_at_every_step_give():
    x, network = torch.rand(2, 3, 8, 8), small_network()
    answers = []
    for frozen in (True, False):
        network.requires_grad_(not frozen)
        with computing("bfloat16", CPU, network):
            answers.append(network(x).detach())
    assert torch.equal(*answers)


def test_a_search_leaves_victim_prior_and_own_networks_as_they_were(trained_cnn, digits8, white_box):
    victim, view = trained_cnn, white_box(trained_cnn, digits8)
    prior = WganGp(iterations=1, width=4, latent_dim=8).network(digits8.spec).eval().requires_grad_(False)
    seen = {}

    class Watched(MiFaceDenoise):
        def reconstruct(self, view, knowledge, goal, networks):
            held = {"victim": view.model, "prior": knowledge.prior, "own": networks, "owner's": victim}
            types = {name: {one.dtype for one in net.parameters() if one.dim() > 1} for name, net in held.items()}
            seen.update(types)
            return super().reconstruct(view, knowledge, goal, networks)

    attack, knowledge = Watched(iterations=1, training_steps=1, hidden=(8,)), Knowledge(digits8.public, prior)
    networks = attack.trained(view, knowledge, 0)
    held = (victim, view.model, prior, networks)
    before = [{name: one.clone() for name, one in net.state_dict().items()} for net in held]
    objects = [[id(one) for one in net.parameters()] for net in held]
    attack(view, knowledge, ClassGoal(torch.arange(2), 1), seed=0, networks=networks, precision="bfloat16")
    assert seen == {"victim": HALF, "prior": HALF, "own": HALF, "owner's": FULL}
    for net, then, ids in zip(held, before, objects, strict=True):
        assert [id(one) for one in net.parameters()] == ids
        assert all(torch.equal(one, then[name]) for name, one in net.state_dict().items())


def test_what_a_style_generator_computes_stays_in_bfloat16():
    network = StyleGan(latent_dim=8, w_dim=8, layers=2, base=64, width=8).network(IMAGES).eval().requires_grad_(False)
    inputs, given = [], torch.randn(2, 8)

    def note(_module, args):
        inputs.append(args[0].dtype)

    for module in network.modules():
        if isinstance(module, ModulatedConv):
            module.register_forward_pre_hook(note)
    with computing("bfloat16", CPU, network), torch.no_grad():
        assert network.generate(given).dtype == torch.float32
        assert network.blocks(network.styles(given), None, 0, 1).hidden.dtype == torch.float32, "an attack moves it"
    inputs = inputs[:-2]
    assert inputs[0] == torch.float32 and set(inputs[1:]) == HALF, "behind the learned constant"


def test_channels_come_last_inside_a_block_alone_though_it_breaks():
    network = nn.Sequential(nn.Conv2d(4, 4, 3))
    values, weight = network[0].weight.detach().clone(), network[0].weight
    with pytest.raises(RuntimeError, match="broken"), laid_out("bfloat16", network):
        assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
        raise RuntimeError("broken")
    assert weight is network[0].weight and weight.is_contiguous() and torch.equal(weight, values)
    with laid_out("float32", network):
        assert weight.is_contiguous()


def test_only_bfloat16_is_widened():
    for dtype in (torch.float32, torch.float64, torch.int64):
        x = torch.ones(2, dtype=dtype)
        assert widened(x) is x
    assert widened(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32


def test_the_processor_says_whether_it_has_bfloat16_instructions():
    assert has_bfloat16(CPU) in (True, False)
