import pytest
import torch

from mibench.access import LocalTraining
from mibench.defenses.base import Defense
from mibench.defenses.random_erasing import MEANS, RandomErasing
from mibench.errors import UserError
from mibench.settings.updates import client_update
from mibench.targets.mlp import Mlp
from mibench.training import Batch, Recipe, cross_entropy

ASPECTS = [1.0, 3.3]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Weak(RandomErasing):
    """A stub: torchvision's defaults, half of the images and at most a third of the area."""

    def __init__(self):
        super().__init__(probability=0.5, area_low=0.02, area_high=0.33)


class Fixed(RandomErasing):
    """A stub: the rectangle is always in the middle."""

    def holes(self, count, height, width, device):
        holes = super().holes(1, height, width, device)
        return holes.expand(count, -1, -1, -1)


def drawn(defense, size=64, count=1000):
    """Which pixels of ones ``(count, 1, size, size)`` were painted."""
    return defense.erased(torch.full((count, 1, size, size), 2.0)) < 2


def faults(defense, low=0.1, high=0.8):
    """What of the definition 1000 draws break; positions are relative to what a rectangle of that size has."""
    gone = drawn(defense)[:, 0]
    rows, columns = gone.any(2), gone.any(1)
    height, width = rows.sum(1), columns.sum(1)
    places = []
    for inside, length in ((rows, height), (columns, width)):
        start = inside.float().argmax(1)
        places.append(((start + torch.rand(len(start))) / (65 - length) * 4).long().clamp(0, 3))
    table = torch.bincount(places[0] * 4 + places[1], minlength=16).float()
    statistic = float(((table - 1000 / 16) ** 2 / (1000 / 16)).sum())
    found = {
        "mean": abs(float(gone.float().mean()) - (low + high) / 2) > 0.02,
        "untouched": bool((gone.sum((1, 2)) == 0).any()),
        "rectangle": bool((gone.sum((1, 2)) != height * width).any()),
        "place": statistic > 30.58,  # the 0.99 quantile of chi-squared with 15 degrees of freedom
    }
    return {fault for fault, there in found.items() if there}


@pytest.mark.parametrize("aspect", ASPECTS)
def test_every_image_loses_a_rectangle_of_the_right_size_anywhere(aspect):
    assert not faults(RandomErasing(aspect=aspect))


def test_stubs_are_found():
    assert {"mean", "untouched"} <= faults(Weak())
    assert "place" in faults(Fixed())


def test_aspects_are_spread_where_small_rectangles_are_drawn():
    gone = drawn(RandomErasing(area_low=0.1, area_high=0.1, aspect=3.3))[:, 0]
    ratio = gone.any(2).sum(1) / gone.any(1).sum(1)
    assert 0.28 < float(ratio.min()) < 0.4 and 2.6 < float(ratio.max()) < 3.6
    assert abs(float(ratio.log().mean())) < 0.1
    square = drawn(RandomErasing())[:, 0]
    assert torch.equal(square.any(2).sum(1), square.any(1).sum(1))


def test_the_hole_is_filled_with_the_mean_or_with_noise():
    x = torch.full((4, 3, 16, 16), 2.0)
    painted = RandomErasing().erased(x)
    hole = (painted < 2).all(1)
    assert torch.allclose(painted.movedim(1, -1)[hole], torch.tensor(MEANS))
    noisy = RandomErasing(fill="noise").erased(x)
    assert float(noisy[noisy < 2].std()) > 0.2


def test_no_erasing_leaves_training_bit_by_bit_as_it_is(train_under):
    def weights(defense):
        return train_under(defense, Mlp, Recipe(epochs=1), hidden=(16,)).head.weight

    plain = weights(Defense())
    assert torch.equal(weights(RandomErasing(probability=0.0)), plain)
    assert torch.equal(weights(RandomErasing(area_low=0.0, area_high=0.0)), plain)
    assert not torch.equal(weights(RandomErasing()), plain)


def test_batches_are_erased_anew_and_served_images_are_not(digits8, trained_cnn):
    batch = Batch(trained_cnn, digits8.private.train.x[:16], digits8.private.train.y[:16])
    defense = RandomErasing()
    losses = {defense.loss(batch).item(), defense.loss(batch).item(), cross_entropy(batch).item()}
    assert len(losses) == 3
    assert defense.input(batch.x) is batch.x


def test_the_model_still_learns_whole_images(train_under, accuracy_of):
    """Measured: accuracy on whole images 0.987 with up to 0.4 of the area erased, 0.982 with 0.8, 0.991 without."""
    some, plain = (
        accuracy_of(train_under(defense, Mlp, Recipe(epochs=20, lr=2e-3), hidden=(64, 32)))
        for defense in (RandomErasing(area_high=0.4), Defense())
    )
    assert some >= plain - 0.05


def test_a_client_sends_the_gradient_of_an_erased_image(digits8):
    """A linear first layer gives its input away: with the hole, and the image outside of it."""
    model, batch = Mlp(spec=digits8.spec), digits8.private.train[torch.arange(1)]
    sent = client_update(model, batch, RandomErasing(), LocalTraining(), False)[0]
    row = sent["stages.0.0.bias"].abs().argmax()
    seen = (sent["stages.0.0.weight"][row] / sent["stages.0.0.bias"][row]).reshape(1, 1, 8, 8) / 2 + 0.5
    hole = (seen - sum(MEANS) / 3).abs() < 1e-4
    assert 0.05 <= float(hole.float().mean()) <= 0.85
    assert torch.allclose(seen[~hole], batch.x[~hole], atol=1e-4)


@pytest.mark.parametrize("options", [{"probability": 1.1}, {"area_low": 0.9}, {"aspect": 0.5}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=rf"defense\.{next(iter(options))}"):
        RandomErasing(**options)
