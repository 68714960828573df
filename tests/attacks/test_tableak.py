import json

import pytest
import torch
from exact import cosine_distance, inside, sent_of
from safetensors.torch import load_file, save_file
from torch import nn

from mibench.access import GradientsView, Ledger
from mibench.attacks.tableak import Tableak, counted_labels
from mibench.data import Column, Examples, InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.metrics.tolerance_accuracy import ToleranceAccuracy
from mibench.optim.input_space import Relaxed
from mibench.optim.row_adam import Adam
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.cell import Cell
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal, InstanceTask, InstanceTruth

COLUMNS = (
    Column("a", ("u", "v", "w")),
    Column("x", low=-10.0, high=30.0),
    Column("b", ("u", "v", "w", "x", "y")),
    Column("y", low=0.0, high=1.0),
    Column("c", ("u", "v", "w", "x")),
    Column("z"),
    Column("d", ("u", "v", "w", "x")),
)
SPEC = InputSpec("tabular", (len(COLUMNS),), 2, COLUMNS)


def records(count, seed=0):
    """Returns records of the small schema, of two classes."""
    draw = torch.Generator().manual_seed(seed)
    x = torch.stack(
        [
            torch.randint(len(column.values), (count,), generator=draw).float()
            if column.categorical
            else torch.rand(count, generator=draw)
            for column in COLUMNS
        ],
        1,
    )
    x[:, 1] = 20 * x[:, 1] - 5
    x[:, 5] = 100 + 7 * torch.randn(count, generator=draw)
    return Examples(x, torch.randint(2, (count,), generator=draw))


def truth_of(secret, batch, columns, spread):
    target = torch.arange(len(secret) // batch).repeat_interleave(batch)
    return InstanceTruth(
        correct=torch.ones(1), chance=0.5, x=secret.x, y=secret.y, target=target, columns=columns, spread=spread
    )


def accuracy(result, truth):
    """Returns the shares of columns that are right: all, categories, numbers."""
    measured = ToleranceAccuracy().measure(InstanceTask().align(result, truth), truth)
    return [float(one.values.mean()) for one in measured]


class Clients:
    """Messages of an untrained perceptron over the small schema."""

    def __init__(self, messages=10, batch=4, seed=0):
        train = records(400)
        torch.manual_seed(seed)
        model = Mlp(spec=SPEC, hidden=[64])
        model.adapt(train.x)
        self.secret = train[torch.randperm(400)[: messages * batch]]
        self.truth = truth_of(self.secret, batch, COLUMNS, train.x.std(0))
        sent = []
        for x, y in zip(self.secret.x.split(batch), self.secret.y.split(batch), strict=True):
            values = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), list(model.parameters()))
            sent.append(dict(zip(dict(model.named_parameters()), values, strict=True)))
        self.view = GradientsView.of(model, sent, batch, SPEC, Ledger(), torch.device("cpu"))

    def attack(self, **options):
        known = Knowledge(facts={"labels": self.secret.y}, described=("labels",))
        return run(self.view, known, **{"ensemble": 3, "iterations": 300, **options})

    def accuracy(self, **options):
        return accuracy(self.attack(**options), self.truth)


def run(view, known, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return Tableak(**options)(view, known, goal, seed=0).reconstruction


@pytest.fixture(scope="module")
def share():
    """Returns the share of columns that are right, over ten batches, under given options."""
    clients = Clients()
    return lambda **options: clients.accuracy(**options)[0]


@pytest.fixture(scope="module")
def full(share):
    return share()


def test_records_come_back(full):
    assert full >= 0.95


def test_without_the_softmax_fewer_columns_are_right(full, share):
    assert share(softmax=False) < full - 0.08


def test_without_the_sign_fewer_columns_are_right(full, share):
    assert share(signed=False) < full - 0.03


def test_what_was_found_explains_the_message_and_stays_in_the_published_bounds():
    clients = Clients(messages=2)
    result = clients.attack(ensemble=1, iterations=150)
    assert float(result.loss.max()) < 0.1
    assert bool(result.valid.all())
    for position, column in enumerate(COLUMNS):
        values = result.values[:, position]
        if column.low is not None:
            assert column.low <= float(values.min()) <= float(values.max()) <= column.high


def test_members_start_anywhere_in_the_box_and_numbers_are_searched_within_their_bounds():
    """The start is U(-1, 1), and the distance is that of records whose numbers passed a sigmoid."""
    clients = Clients(messages=1)
    view, soft = clients.view, clients.view.relaxed()

    def look(adam, objective, starts, found, steps):
        (u,) = starts
        assert 0.95 < float(u.max()) <= 1 and -1 <= float(u.min()) < -0.95 and abs(float(u.mean())) < 0.2
        labels, sent = clients.secret.y.expand(len(u), -1), sent_of(soft, len(u))
        bounded, free = (
            cosine_distance(soft.updates(Relaxed.of(view, sigmoid=sigmoid).to_inputs(2 * u), labels), sent).detach()
            for sigmoid in (True, False)
        )
        torch.testing.assert_close(objective(torch.arange(len(u)), 2 * u)[0].detach(), bounded, atol=1e-5, rtol=1e-4)
        assert float((bounded - free).abs().min()) > 1e-3

    inside(Adam, "minimise", clients.attack, look)


def test_the_anchor_is_chosen_by_the_distances_of_decided_records(monkeypatch):
    clients, seen, pool = Clients(messages=1), [], Tableak.pool
    monkeypatch.setattr(Tableak, "pool", lambda self, *given: seen.append(given) or pool(self, *given))
    clients.attack(ensemble=4, iterations=10)
    ((space, points, scores),) = seen[-1:]
    labels, sent = clients.secret.y.expand(4, -1), sent_of(clients.view, 4)
    decided, soft = (
        cosine_distance(clients.view.relaxed().updates(inputs, labels), sent).detach()
        for inputs in (space.encode(space.decode(points)), space.to_inputs(points))
    )
    torch.testing.assert_close(scores, decided, atol=1e-5, rtol=1e-4)
    assert float((soft - decided).abs().min()) > 1e-3


def test_rows_are_alike_where_numbers_differ_by_less_than_the_tolerance():
    """Two records of the same categories, whose numbers are two deviations apart, and both a little moved."""
    space, *_ = ensemble()
    spread = torch.stack([space.std[place.start] * (not column.categorical) for column, place in space.places()])
    anchor = records(1).x + torch.tensor([[0.0], [2.0]]) * spread
    assert Tableak().order(space, anchor, anchor.flip(0) + 0.2 * spread).tolist() == [1, 0]
    assert Tableak().order(space, anchor, anchor + 0.2 * spread).tolist() == [0, 1]


def ensemble():
    """Returns a space, and five members of one batch: the same four records in other orders, the last one far off."""
    view = Clients(messages=1).view
    space, draw = Relaxed.of(view), torch.Generator().manual_seed(0)
    point = 4 * torch.randn(4, space.width, generator=draw)
    orders = [torch.randperm(4, generator=draw) for _ in range(5)]
    members = torch.stack([point[order] + 0.05 * torch.randn(4, space.width, generator=draw) for order in orders])
    members[4] = -members[4]
    return space, point, members, torch.tensor([0.3, 0.1, 0.3, 0.3, 0.9])


def test_rows_are_matched_to_the_anchors_before_they_are_pooled():
    space, _, members, scores = ensemble()
    pooled = Tableak().pool(space, members, scores)
    anchor = space.decode(members[1])
    categorical = torch.tensor([column.categorical for column in COLUMNS])
    assert torch.equal(pooled.records[:, categorical], anchor[:, categorical])
    torch.testing.assert_close(pooled.soft, space.to_inputs(members[1]), atol=0.2, rtol=0)
    assert not torch.equal(space.decode(members[0])[:, categorical], anchor[:, categorical])  # whose order is another


def test_the_median_bears_a_member_that_went_astray_and_the_mean_does_not():
    space, _, members, scores = ensemble()

    def off(pooling):
        pooled = Tableak(pooling=pooling).pool(space, members, scores).soft
        return float((pooled - space.to_inputs(members[1])).abs().max())

    assert off("median_softmax") < 0.2 < off("mean_softmax")
    assert off("best") == 0


def test_the_uncertain_columns_are_those_on_which_members_disagree():
    space, _, members, scores = ensemble()
    members = members[:4].clone()
    members[:, :, 0:3] = 0.0  # nobody decides the first category
    pooled = Tableak().pool(space, members, scores[:4])
    unsure = pooled.uncertainty()
    assert unsure.shape == (4, len(COLUMNS))
    torch.testing.assert_close(unsure[:, 0], torch.ones(4))
    assert float(unsure[:, 1:].max()) < 0.9
    alone = Tableak().pool(space, members[:1], scores[:1]).uncertainty()
    assert float(alone[:, [1, 3, 5]].max()) == 0, "one member does not disagree"


def test_members_without_a_finite_distance_are_left_out():
    space, _, members, scores = ensemble()
    members[4], scores = torch.nan, torch.tensor([torch.nan, 0.1, torch.inf, 0.3, torch.nan])
    assert len(Tableak().pool(space, members, scores).members) == 2


def test_labels_are_counted_from_the_bias():
    torch.manual_seed(0)
    likely, y = torch.tensor([0.4, 0.6]), torch.tensor([0, 1, 1, 1, 0, 1, 1, 1])
    gradient = likely - y.bincount() / len(y)
    assert counted_labels(likely + 0.03 * torch.tensor([1.0, -1.0]), {"head.bias": gradient}, 8).tolist() == sorted(y)


@pytest.mark.parametrize("bias", [[-3.0, 3.0], [-3.0, -3.0], [9.0, 9.0], [torch.nan, torch.inf]])
def test_a_bias_that_was_altered_still_gives_a_label_to_every_record(bias):
    found = counted_labels(torch.tensor([0.4, 0.6]), {"head.bias": torch.tensor(bias)}, 8)
    assert len(found) == 8 and set(found.tolist()) <= {0, 1}


def test_labels_that_are_not_granted_are_counted():
    clients = Clients()
    result = run(clients.view, Knowledge(), ensemble=1, iterations=2)
    for found, true in zip(result.labels.split(4), clients.secret.y.split(4), strict=True):
        assert sorted(found.tolist()) == sorted(true.tolist())


def test_a_target_without_an_encoder_of_records_is_refused():
    clients = Clients(messages=1)
    clients.view.model.normalise = nn.Identity()
    with pytest.raises(UserError, match="target=mlp"):
        clients.attack()


def test_a_cell_runs_with_its_nulls(data_root, make_cell, tmp_path):
    if not (data_root / "adult").is_dir():
        pytest.skip("the data root has no table of adults")
    cell = make_cell(
        "attack=tableak", "dataset=adult", "attack.iterations=150", f"paths.data={data_root}", folder=tmp_path
    )
    scores = {(one.metric, one.variant): one for one in cell.scores()}
    found = scores["tolerance_accuracy", ""]
    assert found.value > 0.8
    assert set(cell.nulls) == {"uniform", "cat_empirical", "all_empirical"} and found.null_name in cell.nulls
    assert found.value > max(found.control, found.null)
    assert cell.draw(list(scores.values())) is None


def peer_model():
    """Returns the official code's network; it takes encoded records."""
    return nn.Sequential(nn.Linear(105, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU(), nn.Linear(100, 2))


def peer_cell(folder, tmp_path, name, *words):
    """Returns the cell that attacks a stored update of the official code through ``setting=captured``."""
    stored, case = load_file(folder / "model_and_scaling.safetensors"), load_file(folder / f"{name}.safetensors")
    mean, std, columns = stored.pop("mean"), stored.pop("std"), []
    plain, records = case["true_x"] * std + mean, []
    for one in json.loads((folder / "schema.json").read_text())["features"]:
        place = one["columns"]
        scale = {"mean": mean[place].tolist(), "std": std[place].tolist()}
        if one["kind"] == "cat":
            columns.append({"name": one["name"], "categories": one["categories"], **scale})
            records.append(plain[:, place].argmax(1).float())
        else:
            low, high = one["bounds"]
            scale = {key: value for key, (value,) in scale.items()}
            columns.append({"name": one["name"], "low": low, "high": high, **scale})
            records.append(plain[:, place[0]])
    names, labels = list(peer_model().state_dict()), case["labels"]
    files = {
        "weights": {name: stored[f"w{position}"] for position, name in enumerate(names)},
        "update": {name: case[f"g{position}"] for position, name in enumerate(names)},
        "truth": {"records": torch.stack(records, 1), "labels": labels},
    }
    for what, tensors in files.items():
        header = {"columns": json.dumps(columns)} if what == "update" else None
        save_file(tensors, tmp_path / f"{what}.safetensors", header)
    return Cell(plan_cell(compose([
        "attack=tableak", "setting=captured", "dataset=captured_update", f"dataset.file={tmp_path}/update.safetensors",
        f"dataset.truth={tmp_path}/truth.safetensors", f"dataset.batch_size={len(labels)}",
        f"dataset.labels={labels.tolist()}", "target=checkpoint", f"target.factory={__name__}:peer_model",
        f"target.weights={tmp_path}/weights.safetensors", "device=cpu", f"paths.store={tmp_path}/store",
        f"paths.results={tmp_path}/results", *words,
    ])))  # fmt: skip


@pytest.mark.parametrize(
    ("name", "members", "iterations", "least"),
    [
        ("b1_s0", 5, 300, 1.0),  # a record alone comes back early
        pytest.param("b8_s1", 10, 1500, 1.0, marks=pytest.mark.slow),
        pytest.param("b32_s1", 10, 1500, 0.85, marks=pytest.mark.slow),
    ],
)
def test_it_does_as_well_as_the_official_code(case_folder, tmp_path, name, members, iterations, least):
    words = [f"attack.ensemble={members}", f"attack.iterations={iterations}"]
    cell = peer_cell(case_folder("tableak_adult"), tmp_path, name, *words)
    scores = {(one.metric, one.variant): one for one in cell.scores()}
    assert scores["tolerance_accuracy", ""].value >= least and cell.facts().modality == "tabular"
    assert "psnr" not in {metric for metric, _ in scores}


def test_a_stored_gradient_is_that_of_the_stored_records(case_folder, tmp_path):
    cell = peer_cell(case_folder("tableak_adult"), tmp_path, "b8_s1")
    view, truth = cell.observation.view, cell.truth
    (sent,) = view.messages
    own = view.gradient(truth.x, truth.y)
    for name, value in sent.items():
        torch.testing.assert_close(own[name], value, atol=1e-5, rtol=1e-3)
