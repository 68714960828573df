import pytest
import torch
from torch import nn

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.mi_face import MiFace
from mibench.data import InputSpec
from mibench.datasets.digits import Digits
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.tasks.class_ import ClassGoal


class SoftmaxRegression(Classifier):
    def __init__(self, pixels=64, classes=10):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Flatten()])
        self.head = nn.Linear(pixels, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)


@pytest.fixture(scope="module")
def regression():
    """Softmax regression on 600 digits of 8x8 pixels, with those digits."""
    split = Digits(size=8, private=range(10), public=()).load()
    rows = torch.randperm(len(split.private.train), generator=torch.Generator().manual_seed(0))[:600]
    data = split.private.train[rows]
    model = SoftmaxRegression()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x), data.y).backward()
        optimizer.step()
    return WhiteBoxView.of(model, split.spec, Ledger(), torch.device("cpu")), data


def attack(view, targets, samples=1, **options):
    return MiFace(**options)(view, Knowledge(), ClassGoal(torch.tensor(targets), samples), seed=0)


def likest_class(images, data):
    """Returns for every image the class whose mean image it correlates with most."""
    means = torch.stack([data.x[data.y == label].mean(0).flatten() for label in range(10)])
    both = torch.corrcoef(torch.cat([images.flatten(1), means]))
    return both[: len(images), len(images) :].argmax(1)


@pytest.mark.parametrize("cost", ["one_minus_p", "neg_log_p"])
@pytest.mark.parametrize("start", [0.0, 0.1])
def test_every_class_is_reached_and_looks_like_its_own_mean(regression, start, cost):
    view, data = regression
    result = attack(view, range(10), iterations=300, start=start, cost=cost).reconstruction
    confidence = view.logits(result.values).softmax(1).diagonal()
    assert float(confidence.min()) >= 0.99
    assert int((likest_class(result.values, data) == torch.arange(10)).sum()) >= 9


def test_noise_does_not_look_like_the_class_means(regression):
    _, data = regression
    noise = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert int((likest_class(noise, data) == torch.arange(10)).sum()) <= 4


def test_samples_of_a_class_differ_unless_they_start_from_black(regression):
    view, _ = regression
    own = attack(view, [3], samples=4, iterations=20).reconstruction.values
    black = attack(view, [3], samples=4, iterations=20, start=0.0).reconstruction.values
    assert len(own.unique(dim=0)) == 4
    assert len(black.unique(dim=0)) == 1


def test_a_sample_is_frozen_at_the_confidence_while_others_go_on(regression):
    view, _ = regression
    alone = [attack(view, [c], iterations=300, start=0.0).reconstruction.values for c in range(10)]
    together = attack(view, range(10), iterations=300, start=0.0).reconstruction.values
    torch.testing.assert_close(together, torch.cat(alone))
    further = attack(view, range(10), iterations=300, start=0.0, confidence=1.0).reconstruction.values
    assert not torch.allclose(together, further, atol=1e-3)


class Staircase(Classifier):
    """Two classes; the logit of class 1 is the mean pixel for ``good`` calls and constant from then on."""

    def __init__(self, good):
        super().__init__()
        self.normalise = nn.Identity()
        self.good, self.calls = good, 0

    def forward(self, x):
        self.calls += 1
        mean = self.normalise(x).flatten(1).mean(1)
        self.level = mean.detach() if self.calls <= self.good else self.level
        score = mean if self.calls <= self.good else 0 * mean + self.level
        return torch.stack([torch.zeros_like(score), score], 1)


@pytest.mark.parametrize("good", [1, 8, 25])
def test_it_stops_after_as_many_steps_without_progress_as_the_patience_allows(good):
    patience = 8
    spec = InputSpec("image", (1, 4, 4), classes=2)
    view = WhiteBoxView.of(Staircase(good), spec, Ledger(), torch.device("cpu"))
    attack(view, [1], iterations=1000, patience=patience)
    # the rule is applied to every sample at every step; whether all have stopped is looked up once per patience
    assert good + patience <= view.ledger.queries <= good + 2 * patience


def test_the_lowest_cost_of_the_trajectory_is_returned(regression):
    view, _ = regression
    costs = []
    for iterations in (0, 5, 30):
        options = {"iterations": max(1, iterations), "lr": 30.0, "confidence": 2.0, "cost": "neg_log_p"}
        result = attack(view, [4], **options).reconstruction.values
        costs.append(float(1 - view.logits(result).softmax(1)[0, 4]))
    assert costs[2] <= costs[1] + 1e-6  # a longer, overshooting walk is never worse than a shorter one


def test_a_mistaken_option_is_refused():
    with pytest.raises(UserError, match=r"attack\.cost"):
        MiFace(cost="log_p")
    with pytest.raises(UserError, match=r"attack\.patience"):
        MiFace(patience=0)
