import pytest
import torch

from mibench.access import Ledger
from mibench.attacks.nearest_public import NearestPublic
from mibench.data import Examples
from mibench.knowledge import Knowledge
from mibench.tasks.class_ import ClassGoal


@pytest.fixture(scope="module")
def attack(trained_cnn, digits8, white_box):
    """Returns scores view, public images and result."""

    def run(goal, images=None, budget=None, **options):
        view = white_box(trained_cnn, digits8).narrow()
        view.ledger.budget = budget
        public = Examples(digits8.public.x[:images], digits8.public.y[:images])
        return view, public.x, NearestPublic(**options)(view, Knowledge(public), goal, seed=0)

    return run


def are_the_highest(view, public, images, goal):
    """Whether no public image that was left out scores higher for the class than one that was taken."""
    rest = type(view)(view.spec, Ledger(), view.device, view._ask)
    everything = rest.query(public)
    for images_of, label in zip(images.split(goal.samples), goal.targets, strict=True):
        lowest = float(rest.query(images_of)[:, label].min())
        if int((everything[:, label] > lowest + 1e-6).sum()) >= goal.samples:
            return False
    return True


def test_every_image_is_public_and_scores_highest_for_its_class(attack):
    goal = ClassGoal(torch.tensor([3, 1]), samples=4)
    view, public, result = attack(goal)
    images = result.reconstruction.values
    rows = {row.numpy().tobytes() for row in public}
    assert all(row.numpy().tobytes() in rows for row in images)
    assert are_the_highest(view, public, images, goal)
    assert len(images.split(4)[0].unique(dim=0)) == 4
    assert not are_the_highest(view, public, public[:8], goal)  # a stub that takes the first
    assert not are_the_highest(view, public, images.roll(4, 0), goal)  # or the best of another class


def test_the_best_come_first_and_each_public_image_is_asked_about_once(attack):
    goal = ClassGoal(torch.tensor([2]), samples=5)
    view, public, result = attack(goal, batch_size=100)
    assert result.ledger["queries"] == {"prepare": 0, "initialise": 0, "optimise": 0, "select": len(public)}
    scores = view.query(result.reconstruction.values)[:, 2]
    assert torch.equal(scores, scores.sort(descending=True).values)
    torch.testing.assert_close(
        result.reconstruction.values, attack(goal, batch_size=7)[2].reconstruction.values, rtol=0, atol=0
    )


def test_a_spent_budget_leaves_the_best_of_those_that_were_asked_about(attack):
    goal = ClassGoal(torch.tensor([2]), samples=5)
    _, _, result = attack(goal, budget=150, batch_size=50)
    assert "budget" in result.stopped
    assert torch.equal(result.reconstruction.values, attack(goal, images=150)[2].reconstruction.values)


def test_fewer_public_images_than_samples_come_again(attack):
    images = attack(ClassGoal(torch.tensor([0, 4]), samples=5), images=3)[2].reconstruction.values
    for images_of in images.split(5):
        assert len(images_of.unique(dim=0)) == 3
        assert torch.equal(images_of[:2], images_of[3:])
