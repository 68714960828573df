"""Small truths whose numbers can be worked out by hand."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.functional import normalize

from mibench.data import Examples, Population
from mibench.datasets.lfw import Lfw
from mibench.errors import DatasetNotFoundError, WeightsMissingError
from mibench.metrics.lpips import BACKBONES
from mibench.model import Classifier
from mibench.nn import mobilefacenet
from mibench.seeding import seeded
from mibench.targets.cnn import Cnn
from mibench.targets.mlp import Mlp
from mibench.tasks.base import Evaluator, Reconstruction
from mibench.tasks.class_ import ClassTruth
from mibench.tasks.completion import CompletionTruth
from mibench.tasks.instance import InstanceTruth
from mibench.training import Recipe, Training


class LinearEvaluator(Classifier):
    """Its penultimate features are the pixels, its logits a linear map of them."""

    def __init__(self, weight, bias):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Identity()])
        self.head = nn.Linear(weight.shape[1], weight.shape[0])
        self.head.weight.data, self.head.bias.data = weight.float(), bias.float()
        self.eval()


@pytest.fixture
def patterns():
    """Three 64x64 images whose values under the image metrics are known: A, a duller A (B), and a chess board (C)."""
    i, j = torch.meshgrid(torch.arange(64.0).double(), torch.arange(64.0).double(), indexing="ij")
    a = ((i / 5).sin() + (j / 7).cos()) / 4 + 0.5
    board = 0.8 * (((i / 8).floor() + (j / 8).floor()) % 2) + 0.1
    return a[None, None], (0.8 * a + 0.1)[None, None], board[None, None]


@pytest.fixture
def paired():
    """Makes a reconstruction and the truth it is matched with: ``paired(x, guess, batch=4)``."""

    def make(x, guess, batch=1, y=None, labels=None, valid=None):
        target = torch.arange(len(x) // batch).repeat_interleave(batch)
        y = torch.zeros(len(x), dtype=torch.long) if y is None else y
        truth = InstanceTruth(correct=torch.ones(1), chance=0.5, x=x, y=y, target=target)
        return Reconstruction(guess, target, labels, valid), truth

    return make


@pytest.fixture
def completed():
    """Makes a completion and its truth: ``completed(x, guess, hole)``."""

    def make(x, guess, hole):
        place, y = torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)
        truth = CompletionTruth(correct=torch.ones(1), chance=0.5, x=x, y=y, target=place, hole=hole)
        return Reconstruction(guess, place), truth

    return make


@pytest.fixture
def linear_evaluator():
    """Makes an evaluator with given logits: ``linear_evaluator(weight, bias)``; features are the pixels."""

    def make(weight, bias=None, name="linear"):
        bias = torch.zeros(len(weight)) if bias is None else bias
        return Evaluator(name, LinearEvaluator(weight, bias), 1.0)

    return make


@pytest.fixture
def nearest_evaluator(linear_evaluator):
    """Makes an evaluator that names the class of the nearest of the given images, one per class."""

    def make(images, name="nearest"):
        flat = images.flatten(1).float()
        return linear_evaluator(2 * flat, -flat.square().sum(1), name)

    return make


@pytest.fixture
def class_truth():
    """Makes a truth of the class task: ``class_truth(images, labels, evaluators)``; further words are fields."""

    def make(x, y, evaluators, test=None, **more):
        examples = Examples(x, y)
        return ClassTruth(
            correct=torch.ones(1),
            chance=0.5,
            private=Population(examples, test or examples),
            evaluators=evaluators,
            **more,
        )

    return make


@pytest.fixture
def mean_of():
    """Returns the value of one variant as scored: the mean over targets."""

    def read(metric, result, truth, variant="", evaluator=None):
        for one in metric.measure(result, truth):
            if one.variant == variant and evaluator in (None, one.evaluator):
                values = torch.stack([one.values[one.groups == g].double().mean() for g in one.groups.unique()])
                assert math.isfinite(float(values.mean()))
                return float(values.mean())
        raise AssertionError(f"no variant {variant!r}")

    return read


@pytest.fixture
def drawn_faces(monkeypatch):
    """Stands in for the face embedding: a picture's first two pixels are the face, as a direction."""

    class Drawn(nn.Module):
        def forward(self, x):
            return normalize(x.flatten(1)[:, :2])

    monkeypatch.setattr(mobilefacenet, "load", lambda *_: Drawn())

    def make(*angles):
        """Returns pictures ``(N, 1, 2, 2)`` of faces at these angles, in degrees between 0 and 90."""
        turn = torch.tensor(angles).double() * math.pi / 180
        return torch.stack([turn.cos(), turn.sin(), 0 * turn, 0 * turn], 1).reshape(-1, 1, 2, 2).float()

    return make


@pytest.fixture(scope="session")
def alexnet(tmp_path_factory):
    """The file and the features of an AlexNet that nobody trained, under a name that promises its checksum."""
    folder = tmp_path_factory.mktemp("alexnet")
    torch.manual_seed(3)
    network = torchvision.models.alexnet(weights=None)
    state = {f"features.{name}": value for name, value in network.features.state_dict().items()}
    torch.save({**state, "classifier.6.bias": torch.zeros(1000)}, folder / "file")
    checksum = hashlib.sha256((folder / "file").read_bytes()).hexdigest()
    return (folder / "file").rename(folder / f"alexnet-{checksum[:8]}.pth"), network.features.eval()


@pytest.fixture
def backbone(alexnet, tmp_path, monkeypatch):
    """A copy of that file, and the network's features: it tests the loading, not the values."""
    file, features = alexnet
    path = Path(shutil.copy(file, tmp_path))
    monkeypatch.setitem(BACKBONES, "alex", path.name)
    return path, features


@pytest.fixture(scope="session")
def real_faces(data_root):
    """The truth of 10 people of LFW at 64 pixels, and an embedding that cannot tell people apart: a random one."""
    try:
        mobilefacenet.load(Path(torch.hub.get_dir()) / "checkpoints")
        few = {"private_people": 10, "held_out_people": 0, "max_per_class": 10, "public_limit": 40}
        split = Lfw(data_root=data_root, size=64, **few).load()
    except (WeightsMissingError, DatasetNotFoundError) as missing:
        pytest.skip(str(missing))
    with seeded(0):
        random = mobilefacenet.MobileFaceNet().eval()
    truth = ClassTruth(
        correct=torch.ones(1), chance=0.1, private=split.private, public=split.public, subject=split.subject
    )
    return truth, random


@pytest.fixture(scope="session")
def audited(digits8):
    """The truth of 8x8 digits with a victim (an MLP), evaluation models (another MLP, a CNN) and public digits."""

    def trained(architecture, seed, **options):
        with seeded(seed):
            model = architecture(spec=digits8.spec, **options)
        train, recipe = digits8.private.train, Recipe(epochs=10, batch_size=64, lr=5e-3)
        return Training(model, train, recipe, seed, torch.device("cpu")).run()

    victim = trained(Mlp, 0)
    evaluators = [Evaluator("cnn", trained(Cnn, 1, width=8), 1.0), Evaluator("mlp", trained(Mlp, 2), 1.0)]
    return ClassTruth(
        correct=torch.ones(1),
        chance=0.2,
        private=digits8.private,
        public=digits8.public,
        victim=victim,
        evaluators=evaluators,
    )
