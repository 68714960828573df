import copy

import pytest
import torch
from torch import nn

from mibench.attacks.deepinversion import DeepInversion, filled
from mibench.errors import IncompatibleCellError
from mibench.knowledge import Knowledge
from mibench.optim.regularisers import BatchNormStatistics
from mibench.tasks.class_ import ClassGoal

GOAL = ClassGoal(torch.arange(5), samples=12)


def mismatch(model, images):
    with torch.no_grad(), BatchNormStatistics(model) as statistics:
        model(images)
        return float(statistics.mismatch())


@pytest.fixture(scope="module")
def attack(trained_cnn, digits8, white_box):
    def run(goal=GOAL, model=trained_cnn, parts=None, **options):
        view = white_box(model, digits8)
        search = DeepInversion(**{"iterations": 400, "lr": 0.1, "batch": 60, "jitter": 1, **options})
        vars(search).update(parts or {})
        return view, search(view, Knowledge(), goal, seed=0).reconstruction.values

    return run


@pytest.fixture(scope="module")
def inverted(attack):
    return attack()[1]


@pytest.fixture(scope="module")
def under_cross_entropy_alone(attack):
    return attack(statistics_weight=0.0)[1]


def accuracy(model, images):
    with torch.no_grad():
        return float((model(images).argmax(1) == GOAL.labels).float().mean())


def test_the_batch_has_the_statistics_of_the_training_data(trained_cnn, digits8, inverted, under_cross_entropy_alone):
    train = digits8.private.train
    real = torch.cat([train.x[train.y == label][:12] for label in range(5)])
    noise = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain = mismatch(trained_cnn, under_cross_entropy_alone)
    assert mismatch(trained_cnn, inverted) < 0.25 * plain  # measured: 0.12; cross-entropy alone is 1
    assert mismatch(trained_cnn, real) < 0.25 * plain
    assert mismatch(trained_cnn, noise) > plain


def test_the_target_names_the_classes(trained_cnn, inverted, under_cross_entropy_alone):
    assert accuracy(trained_cnn, inverted) >= 0.85
    assert accuracy(trained_cnn, under_cross_entropy_alone) >= 0.95


def test_a_stub_without_the_identity_reaches_no_class(trained_cnn, attack):
    nothing = {"replaced": lambda view, images, labels: 0 * view.logits(images).sum(1)}
    _, images = attack(parts=nothing)
    assert accuracy(trained_cnn, images) < 0.5


def test_a_goal_of_few_classes_is_filled_with_the_others(attack):
    goal = ClassGoal(torch.tensor([3]), samples=2)
    view, images = attack(goal, iterations=3, batch=20)
    assert view.ledger.queries == 3 * 20
    assert images.shape == (2, 1, 8, 8)
    labels = filled(goal.labels, classes=5, least=20)
    assert labels[:2].tolist() == [3, 3]
    assert torch.bincount(labels).tolist() == [4, 4, 4, 4, 4]
    assert filled(GOAL.labels, classes=5, least=20).tolist() == GOAL.labels.tolist()


def test_a_target_without_batch_norm_is_refused_in_one_sentence(attack, trained_cnn):
    bare = copy.deepcopy(trained_cnn)
    for stage in bare.stages:
        stage[1] = nn.Identity()
    with pytest.raises(IncompatibleCellError, match="batch-norm layers"):
        attack(model=bare, iterations=2)


def test_nothing_is_left_on_the_target(attack):
    view, _ = attack(iterations=2)
    layers = [module for module in view.model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(layers) == 3
    assert not any(layer._forward_pre_hooks for layer in layers)
