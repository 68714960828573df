import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mibench.access import Ledger
from mibench.attacks.imprint import Imprint, PlantingServer
from mibench.data import Examples
from mibench.defenses.base import Defense
from mibench.defenses.sec_agg import SecAgg
from mibench.errors import IncompatibleCellError, NotGrantedError
from mibench.knowledge import Knowledge
from mibench.settings.base import Scene
from mibench.settings.federated import Federated
from mibench.settings.victim import Blueprint
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal
from mibench.training import Recipe


@pytest.fixture
def planted(digits8, one_client):
    """Plants a server in front of a LeNet in float64, and returns the view of one client of ``batch`` digits."""

    def plant(attack, batch, seed=0):
        spec = digits8.spec
        public = Examples(digits8.public.x.double(), digits8.public.y)
        server = attack.server(public, spec, seed)
        torch.manual_seed(seed)
        model = server.broadcast(0, LeNet(spec=spec).double())
        draws = torch.Generator().manual_seed(seed)
        data = digits8.private.train[torch.randperm(len(digits8.private.train), generator=draws)[:batch]]
        x = data.x.double()
        return one_client(model.double(), x, data.y, spec), x, server

    return plant


def found(attack, view, x):
    result = attack(
        view, Knowledge(facts={"labels": torch.zeros(len(x), dtype=torch.long)}), InstanceGoal(1, len(x)), seed=0
    )
    values = result.reconstruction.values[~result.reconstruction.missing]
    assert result.ledger["queries"] == {"prepare": 0, "initialise": 0, "optimise": 0, "select": 0}
    near = (values[None].flatten(2) - x[:, None].flatten(2)).abs().amax(2)
    return int((near.amin(1) < 1e-6).sum()) if len(values) else 0


def alone(server, x):
    """How many images lie alone between two edges, above the first one."""
    bins = (x.flatten(1) @ server.weight[0].double()[:, None] + server.bias.double() > 0).sum(1)
    return sum(int((bins == one).sum()) == 1 for one in bins.tolist() if one > 0)


@pytest.mark.parametrize(("batch", "bins"), [(16, 64), (64, 256)])
@pytest.mark.parametrize("functional", ["random", "mean"])
def test_every_image_that_is_alone_in_its_bin_comes_back_and_no_other(planted, batch, bins, functional):
    """The exactness is algebra: as many images as are alone in their bin, within 1e-6 in float64."""
    for seed in range(2):
        attack = Imprint(bins=bins, functional=functional)
        view, x, server = planted(attack, batch, seed)
        assert found(attack, view, x) == alone(server, x) >= batch // 3


def test_a_random_functional_parts_more_images_than_their_mean(planted):
    counts = {kind: alone(*planted(Imprint(bins=256, functional=kind), 64)[:0:-1]) for kind in ("random", "mean")}
    assert counts["random"] > counts["mean"] + 4


def test_the_planted_weights_and_blocks_are_those_of_the_docstring(digits8):
    """Quantiles of public images and a column for all units; halves of either sign, and the image passed on."""
    x, model = digits8.private.train.x[:6], LeNet(spec=digits8.spec)
    server = Imprint(bins=7, gain=2.0).server(digits8.public, digits8.spec, 0)
    row, cuts = server.weight[0], -server.bias[:, None]
    assert torch.equal(server.weight, row.expand(7, -1))
    below = (digits8.public.x.flatten(1) @ row < cuts).float().mean(1)
    torch.testing.assert_close(below, torch.arange(1, 8) / 8, atol=2 / len(digits8.public), rtol=0)
    fires = (x.flatten(1) @ row + server.bias[:, None]).relu().sum(0)
    expected = model.normalise((fires[:, None] * server.column).reshape(x.shape))
    torch.testing.assert_close(server.broadcast(0, model).normalise(x), expected)
    assert float(server.column.norm()) == pytest.approx(2.0, rel=0.3)

    server = Imprint(variant="cah", bins=512, sigma=0.5, squeeze=0.7).server(None, digits8.spec, 0)
    negative = server.weight < 0
    assert bool((negative.sum(1) == 32).all()) and len(negative.unique(dim=0)) == 512 and not server.bias.any()
    spread = float(server.weight[negative].square().mean().sqrt())
    assert spread == pytest.approx(0.5, rel=0.05)
    assert float(server.weight[~negative].square().mean().sqrt()) == pytest.approx(0.7 * spread, rel=0.05)
    passed = (x.flatten(1) @ server.weight.T).relu().mean(1)[:, None, None, None]
    torch.testing.assert_close(server.broadcast(0, model).normalise(x), model.normalise(x + passed))


def test_units_that_fire_for_one_image_hold_it(planted):
    attack = Imprint(variant="cah", bins=256, squeeze=0.7)
    view, x, server = planted(attack, 16)
    fires = x.flatten(1) @ server.weight.double().T > 0
    isolated = int(fires[:, fires.sum(0) == 1].any(1).sum())
    assert 8 <= found(attack, view, x) <= isolated, "units that several images fire compete for the places"


def test_without_the_plant_the_same_reading_finds_less(planted, digits8):
    attack = Imprint(bins=64)
    view, x, _ = planted(attack, 16)
    with torch.no_grad():
        view.model.normalise.planted.weight.normal_()
    named = dict(view.model.named_parameters())
    loss = nn.functional.cross_entropy(view.model(x), torch.zeros(16, dtype=torch.long))
    sent = dict(zip(named, torch.autograd.grad(loss, list(named.values())), strict=True))
    assert found(attack, dataclasses.replace(view, messages=[sent], ledger=Ledger()), x) <= 1


def test_it_needs_public_images_and_a_layer_to_read(planted, digits8):
    with pytest.raises(NotGrantedError, match="public"):
        Imprint().server(None, digits8.spec, 0)
    attack = Imprint(bins=8)
    view, _, _ = planted(attack, 2)
    with pytest.raises(IncompatibleCellError, match=r"attack\.layer"):
        Imprint(layer="elsewhere").reconstruct(view, Knowledge(), InstanceGoal(1, 2), nn.ModuleDict())


def test_it_reaches_single_images_behind_secure_aggregation(digits8, workshop):
    attack = Imprint(bins=256)
    blueprint = Blueprint("lenet", lambda spec: LeNet(spec=spec), Recipe(), {"target": "lenet"})
    server = attack.server(digits8.public, digits8.spec, 0)
    scene = Scene(
        split=digits8, blueprint=blueprint, defense=SecAgg(scale=2**24, bound=1.0), defense_key={}, workshop=workshop,
        seed=0, server=server, server_key={"attack": "imprint"},
    )  # fmt: skip
    setting = Federated(clients=8, batch_size=2)
    victim = setting.train(scene, digits8.private, "victim")
    seen = setting.observe(scene, victim, digits8.private, "gradients", 1, Ledger())
    result = attack(seen.view, Knowledge(), InstanceGoal(1, 16), seed=0).reconstruction
    near = (result.values[None] - seen.secret.x[:, None]).square().flatten(2).mean(2).amin(1)
    assert int((near < 1e-2).sum()) >= 4, "the rounding of the ring blurs what the float would show exactly"


def test_the_planted_server_sees_no_example_but_through_messages(digits8, workshop, monkeypatch):
    """Poisoned private data change what it hears and nothing that it holds or sends."""
    attack, heard = Imprint(bins=16), []
    monkeypatch.setattr(PlantingServer, "receive", lambda self, number, messages: heard.append(messages))

    def observe(split):
        server = attack.server(split.public, split.spec, 0)
        scene = Scene(
            split=split, blueprint=Blueprint("lenet", lambda spec: LeNet(spec=spec), Recipe(), {"target": "lenet"}),
            defense=Defense(), defense_key={}, workshop=workshop, seed=0, server=server,
            server_key={"attack": "imprint"},
        )  # fmt: skip
        setting = Federated(clients=2, batch_size=2)
        victim = setting.train(scene, split.private, "victim")
        setting.observe(scene, victim, split.private, "gradients", 2, Ledger())
        return server, heard.pop()

    private = digits8.private
    inverted = dataclasses.replace(private, train=Examples(1 - private.train.x, private.train.y))
    (server, sent), (other, changed) = observe(digits8), observe(dataclasses.replace(digits8, private=inverted))
    assert all(torch.equal(getattr(server, name), getattr(other, name)) for name in ("weight", "bias", "column"))
    assert set(vars(server)) == {"weight", "bias", "column"}
    parameters = {name for name, _ in server.broadcast(0, LeNet(spec=digits8.spec)).named_parameters()}
    assert all(set(one.tensors) == parameters for one in sent)
    assert not torch.equal(sent[0].tensors["head.weight"], changed[0].tensors["head.weight"])


class Peer(nn.Module):
    """The network of the reference case: a planted block before three sigmoid convolutions."""

    def __init__(self):
        super().__init__()
        self.linear0, self.linear2 = nn.Linear(3072, 32), nn.Linear(32, 3072)
        widths = (3, 12, 12, 12)
        self.convs = nn.ModuleList(
            nn.Conv2d(widths[i], widths[i + 1], 5, stride, 2) for i, stride in enumerate((2, 2, 1))
        )
        self.fc = nn.Linear(768, 10)

    def forward(self, x):
        h = self.linear2(torch.relu(self.linear0(x.flatten(1)))).reshape(-1, 3, 32, 32)
        for conv in self.convs:
            h = torch.sigmoid(conv(h))
        return self.fc(h.flatten(1))


NAMES = {
    "linear0": "model.body.0.0.linear0", "linear2": "model.body.0.0.linear2", "convs.0": "model.body.0.1",
    "convs.1": "model.body.2", "convs.2": "model.body.4", "fc": "model.fc.0",
}  # fmt: skip


def test_the_reference_case_through_a_captured_update(case_folder, tmp_path):
    """Every image alone in its bin, two of the first four; the peer's own reader finds the same two."""
    from mibench.planning.composition import compose
    from mibench.planning.plan import plan_cell
    from mibench.running.cell import Cell

    folder = case_folder("imprint_cifar10")
    arrays, case = np.load(folder / "model_rtf_bins32.npz"), load_file(folder / "rtf_bins32_b4_d0.safetensors")
    weights = {f"{ours}.{kind}": torch.from_numpy(arrays[f"{theirs}.{kind}"]) for ours, theirs in NAMES.items()
               for kind in ("weight", "bias")}  # fmt: skip
    update = {name: case.get(f"g.{NAMES[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}", torch.zeros_like(value))
              for name, value in weights.items()}  # fmt: skip
    images = case["images_uint8"].permute(0, 3, 1, 2).float() / 255
    for name, tensors in (
        ("weights", weights),
        ("update", update),
        ("truth", {"images": images, "labels": case["labels"]}),
    ):
        save_file({key: value.contiguous() for key, value in tensors.items()}, tmp_path / f"{name}.safetensors")
    words = [
        "attack=imprint", "attack.layer=linear0", "setting=captured", "dataset=captured_update", "target=checkpoint",
        f"dataset.file={tmp_path}/update.safetensors", f"dataset.truth={tmp_path}/truth.safetensors",
        "dataset.batch_size=4",
        "dataset.mean=[0.49147,0.48226,0.44677]", "dataset.std=[0.24703,0.24349,0.26159]", "dataset.shape=[3,32,32]",
        f"target.factory={__name__}:Peer", f"target.weights={tmp_path}/weights.safetensors",
        f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results",
    ]  # fmt: skip
    cell = Cell(plan_cell(compose(words)))
    made = cell.result.reconstruction
    mse = (made.values[None] - images[:, None]).square().flatten(2).mean(2)
    normal = (images - torch.tensor([0.49147, 0.48226, 0.44677])[:, None, None]) / torch.tensor(
        [0.24703, 0.24349, 0.26159]
    )[:, None, None]
    bins = (nn.functional.linear(normal.flatten(1), weights["linear0.weight"], weights["linear0.bias"]) > 0).sum(1)
    single = [int((bins == one).sum()) == 1 for one in bins]
    exact = (-10 * mse.amin(1).clamp_min(1e-30).log10() > 40).tolist()
    assert exact == single and sum(exact) == 2
