import copy
import math
from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn.functional import cosine_similarity, cross_entropy

from mibench.access import LocalTraining
from mibench.data import Examples
from mibench.datasets.digits import Digits
from mibench.defenses import ats
from mibench.defenses.ats import LIBRARY, Ats, accuracy_score, few_of_each, privacy_scores, read_policies, transform
from mibench.defenses.base import DefenderData, Defense, DefenseContext
from mibench.errors import UserError
from mibench.seeding import generator, seeded
from mibench.settings.updates import client_update
from mibench.targets.mlp import Mlp
from mibench.training import Batch, Recipe, Training

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits16():
    return Digits(size=16).load()


@pytest.fixture(scope="module")
def model(digits16):
    torch.manual_seed(0)
    net = Mlp(spec=digits16.spec, hidden=(32,))
    return Training(net, digits16.private.train, Recipe(epochs=3, lr=5e-3), 0, CPU).run()


@pytest.fixture(scope="module")
def few(digits16):
    return few_of_each(digits16.private.train, 4)


def test_the_identity_is_less_private_than_the_published_policy(model, few):
    """The score is low where gradients agree only near the image. Measured: 0.81 and 0.76."""
    with seeded(0):
        identity = float(privacy_scores(model, few, ()).mean())
        published = float(privacy_scores(model, few, (3, 1, 7)).mean())
    assert published < identity


def test_the_privacy_score_is_the_area_below_the_cosines_to_the_gradient_at_the_image(model, few):
    """From noise to image, a mean over layers; gradients are taken one by one here."""
    one = few[torch.tensor([3])]
    with seeded(0):
        (score,) = privacy_scores(model, one, ())
    with seeded(0):
        noise = torch.rand_like(one.x[0])

    def layers(share):
        point = share * one.x + (1 - share) * noise
        return torch.autograd.grad(cross_entropy(model(point), one.y), list(model.parameters()))

    at = [
        float(torch.stack([cosine_similarity(a.flatten(), b.flatten(), 0) for a, b in zip(*pair, strict=True)]).mean())
        for pair in ((layers(k / 20), layers(1.0)) for k in range(21))
    ]
    assert float(score) == pytest.approx((sum(at) - (at[0] + at[20]) / 2) / 20, abs=1e-5)
    assert at[20] > at[0] + 0.1, "the noise's own gradient is another"


def test_the_accuracy_score_falls_with_the_correlation_of_jacobians():
    """Two Jacobians of correlation r have the eigenvalues 1 - r and 1 + r; images are their own Jacobians here."""

    def score(images):
        return accuracy_score(
            lambda x: x.square() / 2, torch.tensor(images).reshape(2, 1, 2, 2), (), generator(0), runs=2
        )

    assert score([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]) == pytest.approx(-2, abs=1e-3)
    half = [0.25, 0.75, 0.5 + math.sqrt(3) / 4, 0.5 - math.sqrt(3) / 4]  # r = 1/2
    expected = -(math.log(1.5) + 1 / 1.5 + math.log(0.5) + 1 / 0.5)  # -2.379
    assert score([[0.0, 1.0, 0.5, 0.5], half]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("alpha", "accuracy", "best"), [(0.7, -85.0, [0, 1]), (1.0, -85.0, [1, 0]), (0.7, 0.0, [3, 0])]
)
def test_a_search_keeps_the_lowest_rank_of_the_accurate(digits16, monkeypatch, alpha, accuracy, best):
    """Means of two classes are 0.2, 0.15, 0.9, 0.1, variances 0, 0.0225, 0, 0, and the last one is not accurate.

    Normed, ranks at alpha 0.7 are 0.0875, 0.34375, 0.7 and 0; where none is accurate, all count.
    """
    scores = iter([[0.2, 0.2], [0.0, 0.3], [0.9, 0.9], [0.1, 0.1]])
    precise = iter([-50.0, -50.0, -50.0, -100.0])
    tried = []

    def private(_model, examples, policy):
        tried.append(policy)
        assert examples.y.tolist() == [0, 1]
        return torch.tensor(next(scores))

    monkeypatch.setattr(ats, "privacy_scores", private)
    monkeypatch.setattr(ats, "accuracy_score", lambda *_: next(precise))
    monkeypatch.setattr(ats, "Training", lambda model, *_, **__: SimpleNamespace(run=lambda: model))
    train = digits16.private.train
    train = train[train.y < 2]
    defense = Ats(candidates=4, keep=2, images=1, alpha=alpha, accuracy=accuracy)
    defense.architecture(
        Mlp(spec=digits16.spec, hidden=(4,)), DefenseContext(digits16.spec, DefenderData(train, train, None), 0, CPU)
    )
    found = defense.search()
    assert found == [tried[number] for number in best] and len(set(tried)) == 4


def test_every_image_draws_one_of_the_policies_or_none(monkeypatch):
    """At a share of a half, of grey images a quarter is inverted, an eighth is brighter, and an eighth is darker."""
    seen = []
    monkeypatch.setattr(ats, "cross_entropy", lambda batch: seen.append(batch.x))
    with seeded(0):
        Ats(policy="0+13", share=0.5).loss(Batch(None, torch.full((800, 1, 4, 4), 0.25), torch.zeros(800).long()))
    greys = Counter(round(float(one.mean()), 4) for one in seen[0])
    amount = 0.5 * 5 / 9  # of brightness5
    expected = {0.25: 400, 0.75: 200, round(0.25 * (1 + amount), 4): 100, round(0.25 * (1 - amount), 4): 100}
    assert set(greys) == set(expected)
    assert all(abs(greys[grey] - count) < 50 for grey, count in expected.items())


def test_a_gradient_that_does_not_tell_of_the_image_scores_one(model, few):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.ones_like(x).flatten(1)

    blind = copy.deepcopy(model)
    blind.normalise = Constant()
    assert torch.allclose(privacy_scores(blind, few, ()), torch.ones(len(few)), atol=1e-5)
    assert not torch.allclose(privacy_scores(model, few, ()), torch.ones(len(few)), atol=1e-2)


def test_a_search_finds_policies_below_the_median(digits16, few):
    """Of 10 candidates; their scores are measured again, with other noise."""
    train = digits16.private.train
    torch.manual_seed(0)
    untrained = Mlp(spec=digits16.spec, hidden=(16,))
    context = DefenseContext(digits16.spec, DefenderData(train, train, None), 0, CPU)

    defense = Ats(candidates=10, keep=1, images=2)
    defense.architecture(untrained, context)
    (best,) = defense.search()
    judge = Training(copy.deepcopy(untrained), train, Recipe(epochs=2), 0, CPU).run()
    drawn = torch.randint(-1, len(LIBRARY), (20, 3), generator=torch.Generator().manual_seed(5)).tolist()
    with seeded(1):
        others = [privacy_scores(judge, few, tuple(n for n in one if n >= 0)).mean() for one in drawn]
        assert privacy_scores(judge, few, best).mean() < torch.stack(others).median()


def test_a_found_policy_is_stored(digits16):
    defense, other = Ats(candidates=5), Ats(candidates=5)
    defense.policies = [(3, 1, 7), (4,)]
    other.restore(defense.state())
    assert other.policies == [(3, 1, 7), (4,)] and other.facts()["policy"] == "3-1-7+4"


def test_a_client_shares_the_gradient_of_transformed_images(model, digits16):
    """As the central loop does; drawn anew for every client and round, alike for the same seed."""
    batch = digits16.private.train[torch.arange(8)]

    def shared(defense, seed):
        with seeded(seed):
            update = client_update(model, batch, defense, LocalTraining(), False)[0]
        return torch.cat([value.flatten() for value in update.values()])

    plain = shared(Defense(), 0)
    assert torch.equal(shared(Ats(share=0.0), 0), plain)
    assert not torch.allclose(shared(Ats(), 0), plain, atol=1e-4)
    assert torch.equal(shared(Ats(), 0), shared(Ats(), 0))
    assert not torch.equal(shared(Ats(), 0), shared(Ats(), 1))


def test_idle_training_is_bit_by_bit_that_of_none(digits16):
    def weights(defense):
        torch.manual_seed(0)
        net = Mlp(spec=digits16.spec, hidden=(8,))
        return defense.fit(Training(net, digits16.private.train, Recipe(epochs=1), 0, CPU)).head.weight

    assert torch.equal(weights(Ats(share=0.0)), weights(Defense()))
    assert not torch.equal(weights(Ats()), weights(Defense()))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_operation_keeps_images_images(channels):
    x = torch.rand(4, channels, 16, 16, generator=torch.Generator().manual_seed(0))
    assert len(LIBRARY) == 50 and LIBRARY[3] == ("translateX", 9) and LIBRARY[43] == ("translateY", 3)
    for number, (name, _) in enumerate(LIBRARY):
        changed = transform(x, (number,))
        assert changed.shape == x.shape and changed.min() >= 0 and changed.max() <= 1, name
    assert torch.allclose(transform(x, (0,)), 1 - x)
    assert torch.allclose(transform(x, (0, 29)), x), "two inversions, one after the other"
    moved = transform(x, (3,))
    far = round(150 / 331 * 16)
    assert all(
        torch.allclose(one[..., far:], old[..., :-far]) or torch.allclose(one[..., :-far], old[..., far:])
        for one, old in zip(moved, x, strict=True)
    )


@pytest.mark.parametrize("policy", ["", "3-x", "50", "3--1"])
def test_what_is_no_policy_is_refused(policy):
    with pytest.raises(UserError, match=r"defense\.policy"):
        read_policies(policy)


def test_examples_of_each_class(digits16):
    few = few_of_each(Examples(digits16.private.train.x, digits16.private.train.y), 3)
    assert few.y.bincount().tolist() == [3] * 5
