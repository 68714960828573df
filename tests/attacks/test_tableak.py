import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from mibench.access import GradientsView, Ledger
from mibench.attacks.tableak import Tableak, counted_labels
from mibench.data import Column, Examples, InputSpec, Population
from mibench.knowledge import Knowledge
from mibench.metrics.tolerance_accuracy import ToleranceAccuracy
from mibench.model import Classifier
from mibench.optim.input_space import Relaxed
from mibench.targets.mlp import Mlp, RecordEncoder
from mibench.tasks.instance import InstanceGoal, InstanceTask, InstanceTruth

#: Results of the official code, in files; the variable names their folder.
CASES = Path(os.environ.get("MIBENCH_CASES", Path(__file__).parents[2].parent / "shared" / "cases"))
PEER = CASES / "peers" / "tableak_adult"

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

    def __init__(self, messages=5, batch=4, seed=0):
        train = records(400)
        torch.manual_seed(seed)
        model = Mlp(spec=SPEC, hidden=[32, 32])
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
        return run(self.view, known, **{"ensemble": 4, "iterations": 300, **options})

    def accuracy(self, **options):
        return accuracy(self.attack(**options), self.truth)


def run(view, known, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return Tableak(**options)(view, known, goal, seed=0).reconstruction


class ScaledEncoder(RecordEncoder):
    """Standardises one-hot columns too, as the official code does."""

    def __init__(self, columns, mean, std):
        super().__init__(columns)
        self.register_buffer("subtracted", mean)
        self.register_buffer("divided_by", std)

    def canonical(self, x):
        return (super().canonical(x) - self.subtracted) / self.divided_by

    def scaling(self):
        return self.subtracted, self.divided_by


class FullyConnected(Classifier):
    """The official network, with the weights of the stored case."""

    def __init__(self, columns, stored):
        super().__init__()
        self.normalise = ScaledEncoder(columns, stored["mean"], stored["std"])
        self.stages = nn.ModuleList(nn.Sequential(nn.Linear(n, 100), nn.ReLU()) for n in (105, 100))
        self.head = nn.Linear(100, 2)
        with torch.no_grad():
            for position, parameter in enumerate(self.parameters()):
                parameter.copy_(stored[f"w{position}"])


def peer_case(name):
    """Returns the view, the labels and the truth of a stored case of the official code."""
    if not (PEER / f"{name}.safetensors").is_file():
        pytest.skip(f"no stored case {name} of TabLeak's official code; set MIBENCH_CASES to the folder of cases")
    features = json.loads((PEER / "schema.json").read_text())["features"]
    columns = tuple(
        Column(one["name"], tuple(one["categories"] or ()), *(one["bounds"] or (None, None))) for one in features
    )
    stored, case = load_file(PEER / "model_and_scaling.safetensors"), load_file(PEER / f"{name}.safetensors")
    model = FullyConnected(columns, stored)
    spec = InputSpec("tabular", (len(columns),), 2, columns)
    names = [name for name, _ in model.named_parameters()]
    sent = {name: case[f"g{position}"] for position, name in enumerate(names)}
    y = case["labels"]
    view = GradientsView.of(model, [sent], len(y), spec, Ledger(), torch.device("cpu"))
    x = Relaxed.of(view).read(case["true_x"])
    spread = torch.tensor([(one["tolerance"] or 0.0) / 0.319 for one in features])
    return view, y, truth_of(Examples(x, y), len(y), columns, spread)


@pytest.mark.parametrize(
    ("name", "members", "least"),
    [
        ("b1_s0", 5, 1.0),
        pytest.param("b8_s1", 10, 1.0, marks=pytest.mark.slow),
        pytest.param("b32_s1", 10, 0.85, marks=pytest.mark.slow),
    ],
)
def test_it_does_as_well_as_the_official_code(name, members, least):
    view, y, truth = peer_case(name)
    known = Knowledge(facts={"labels": y}, described=("labels",))
    assert accuracy(run(view, known, ensemble=members), truth)[0] >= least


def test_a_stored_gradient_is_that_of_the_stored_records():
    view, y, truth = peer_case("b8_s1")
    (sent,) = view.messages
    own = view.gradient(truth.x, y)
    for name, value in sent.items():
        torch.testing.assert_close(own[name], value, atol=1e-5, rtol=1e-3)
