import copy

import pytest
import torch
from exact import inside
from torch import nn

from mibench.attacks import deepinversion
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


def test_the_batch_of_the_lowest_loss_is_the_result(attack, monkeypatch):
    """Of three batches that are looked at, the one in the middle is the best; neither the first nor the last one is."""
    looked = []

    def descend(start, objective, steps, **options):
        for scale in (4.0, 1.0, 3.0):
            x = scale * start[0]
            looked.append((float(objective(x).mean()), (0.5 + 0.25 * x).clamp(0, 1)))
        return start

    monkeypatch.setattr(deepinversion, "adam_descent", descend)
    _, images = attack(iterations=3, l2_weight=100.0)
    assert min(looked)[0] == looked[1][0] and torch.equal(images, looked[1][1])


def test_what_descends_is_the_formula_on_the_moved_batch(attack, trained_cnn, monkeypatch):
    """Every term with its weight and sign, of the batch rolled by (1 right, 2 down) and mirrored."""
    monkeypatch.setattr(DeepInversion, "_moves", lambda self, view: [[1, 2, 1]])

    def look(start, objective, steps, lr, project, after):
        x = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        moved = x.roll((2, 1), (2, 3)).flip(3)
        differences = [moved[..., 1:] - moved[..., :-1], moved[..., 1:, :] - moved[..., :-1, :]]
        differences += [moved[..., 1:, 1:] - moved[..., :-1, :-1], moved[..., 1:, :-1] - moved[..., :-1, 1:]]
        rough = sum(one.norm() for one in differences)
        with torch.no_grad(), BatchNormStatistics(trained_cnn) as statistics:
            logits = trained_cnn(0.5 + 0.25 * moved)
            mismatch = float(statistics.mismatch((4.0,)))
        identity = nn.functional.cross_entropy(logits, GOAL.labels, reduction="none")
        expected = identity + 3.0 * mismatch + 0.2 * rough + 0.7 * moved.flatten(1).norm(dim=1)
        torch.testing.assert_close(objective(x).detach(), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(project([5 * x])[0], (5 * x).clamp(-2, 2))

    weights = {"statistics_weight": 3.0, "first_layer": 4.0, "tv_weight": 0.2, "l2_weight": 0.7}
    inside(deepinversion, "adam_descent", lambda: attack(iterations=1, **weights), look)


def test_moves_are_drawn_within_the_jitter_and_mirror_half_of_the_steps(trained_cnn, digits8, white_box, monkeypatch):
    monkeypatch.setattr(DeepInversion, "draws", lambda self, device, name: torch.Generator().manual_seed(len(name)))
    moves = torch.tensor(DeepInversion(iterations=400, jitter=2, flip=True)._moves(white_box(trained_cnn, digits8)))
    assert moves[:, :2].unique().tolist() == [-2, -1, 0, 1, 2] and 0.4 < float(moves[:, 2].float().mean()) < 0.6


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
