"""What computes in bfloat16 and what never does, seen by the type that every layer of every network gives."""

import json
from collections import defaultdict

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from mibench.access import ExplanationsView, FeaturesView
from mibench.attacks.families.lbfgs_search import LbfgsSearch
from mibench.attacks.gmi import Gmi
from mibench.attacks.mi_face import MiFaceDenoise
from mibench.knowledge import Knowledge
from mibench.precision import computing, has_bfloat16, laid_out, precision_key, widened
from mibench.priors.wgan_gp import WganGp
from mibench.training import Training

CPU = torch.device("cpu")
HALF, FULL = {torch.bfloat16}, {torch.float32}
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
    assert types["laid out"]["prior"] == {False}, "where instance norm would be slow"
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


def test_nothing_is_told_apart_at_float32():
    assert precision_key("float32") == {}
    assert precision_key("bfloat16") == {"precision": "bfloat16", "precision_revision": 2}


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
