import pytest
import torch

from mibench.defenses.base import Defense
from mibench.defenses.nopeek import NoPeek, centred_distances, distance_correlation
from mibench.seeding import seeded
from mibench.targets.mlp import Mlp
from mibench.training import Batch, Recipe


def squared(first, second):
    """A stub: squared distances, as in Titcombe's code."""
    a, b = (torch.cdist(one, one).square() for one in (first, second))
    a, b = (one - one.mean(1, keepdim=True) - one.mean(0) + one.mean() for one in (a, b))
    return ((a * b).mean() / (a.square().mean() * b.square().mean()).sqrt()).sqrt()


def test_the_statistic_is_the_definitions():
    """0.99170 for (0, 1, 2, 4) against (0, 1, 4, 9); with squared distances it would be 0.99004."""
    first, second = torch.tensor([[0.0], [1], [2], [4]]), torch.tensor([[0.0], [1], [4], [9]])
    assert float(distance_correlation(first, second)) == pytest.approx(0.99170, abs=1e-5)
    assert float(squared(first, second)) == pytest.approx(0.99004, abs=1e-5)
    assert float(distance_correlation(second, first)) == pytest.approx(0.99170, abs=1e-5)


def test_a_rotated_and_scaled_copy_is_fully_dependent_and_a_shuffled_one_hardly():
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(256, 20, generator=draws)
    rotation = torch.linalg.qr(torch.randn(20, 20, generator=draws)).Q
    assert float(distance_correlation(x, 3 * x @ rotation)) == pytest.approx(1, abs=1e-5)
    assert float(distance_correlation(x, torch.randn(256, 20, generator=draws))) == pytest.approx(0.49, abs=0.05)
    assert float(centred_distances(x).mean(0).abs().max()) < 1e-5


def test_constant_features_have_a_finite_gradient():
    z = torch.ones(8, 4, requires_grad=True)
    value = distance_correlation(torch.rand(8, 4), z)
    (gradient,) = torch.autograd.grad(value, z)
    assert float(value.detach()) < 1e-5 and bool(gradient.isfinite().all())


class Reversed(NoPeek):
    """A stub: the sign of the penalty is wrong."""

    def __init__(self):
        super().__init__(alpha=1.0)
        self.alpha = -self.alpha


@pytest.fixture(scope="module")
def trained(digits8, train_under, accuracy_of):
    """Trains a network under a defense: ``trained(defense) -> (model, held-out dCor at stage 0, test accuracy)``."""
    made = {}

    def train(name):
        if name not in made:
            defense = {"none": Defense, "zero": lambda: NoPeek(alpha=0.0), "one": lambda: NoPeek(alpha=1.0),
                       "stub": Reversed}[name]()  # fmt: skip
            model = train_under(defense, Mlp, Recipe(epochs=30, batch_size=32, lr=1e-2), hidden=(24, 16))
            x = digits8.private.test.x
            with torch.no_grad():
                value = float(distance_correlation(x, model.client(x)))
            made[name] = model, value, accuracy_of(model)
        return made[name]

    return train


def test_features_tell_less_of_inputs_at_the_same_accuracy(trained):
    """Measured: 0.936 undefended, 0.701 at a weight of 1, 0.984 of the stub; accuracies of 0.996 and 0.978."""
    (_, plain, before), (_, value, after), (_, wrong, _) = (trained(name) for name in ("none", "one", "stub"))
    assert value < plain - 0.2
    assert wrong > plain - 0.05
    assert after > before - 0.03


def test_a_fresh_decoder_makes_less_of_them(trained, decoder_error):
    """Measured: squared errors of 0.035 undefended and of 0.075 at a weight of 1."""
    plain, defended = decoder_error(trained("none")[0]), decoder_error(trained("one")[0])
    assert defended > 1.3 * plain


def test_no_weight_leaves_training_bit_by_bit_as_it_is(trained, digits8):
    x = digits8.private.test.x
    assert torch.equal(trained("zero")[0].predict_proba(x), trained("none")[0].predict_proba(x))
    assert not torch.equal(trained("one")[0].predict_proba(x), trained("none")[0].predict_proba(x))


def test_it_acts_at_the_cut_and_a_batch_of_one_has_no_distances(digits8):
    torch.manual_seed(0)
    model, data = Mlp(spec=digits8.spec, hidden=(16, 8)), digits8.private.train[torch.arange(20)]
    plain = Defense().loss(Batch(model, data.x, data.y))
    for cut in (None, 0, 1):
        model.cut = cut
        layer = model.blocks(data.x)[cut or 0]
        with seeded(0):
            penalty = NoPeek(alpha=2.0).loss(Batch(model, data.x, data.y)) - plain
        torch.testing.assert_close(penalty, 2 * distance_correlation(data.x, layer))
    one = Batch(model, data.x[:1], data.y[:1])
    assert torch.equal(NoPeek().loss(one), Defense().loss(one))
