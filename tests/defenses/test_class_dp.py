import copy
import math

import pytest
import torch
from scipy.special import gammaln, logsumexp
from torch.nn.functional import cross_entropy

from mibench.data import Examples
from mibench.defenses.class_dp import ClassDp, _GroupTraining
from mibench.defenses.dp_sgd import DpSgd
from mibench.optim.differential_privacy import rdp_epsilon
from mibench.targets.cnn import Cnn
from mibench.targets.mlp import Mlp
from mibench.training import Recipe, Training, is_correct

CPU = torch.device("cpu")
CLASSES = 5


@pytest.fixture(scope="module")
def train(digits8):
    """Twenty digits of each of five classes."""
    private = digits8.private.train
    rows = [torch.nonzero(private.y == label).flatten()[:20] for label in range(CLASSES)]
    return private[torch.cat(rows)]


def test_every_step_draws_a_batch_of_every_group_that_takes_part(small_mlp, train):
    """Batches of ten of five groups are two of each, others in every step; at a rate of a half, half of the groups."""
    rows = [torch.nonzero(train.y == label).flatten() for label in range(CLASSES)]

    def batches(rate):
        recipe = Recipe(epochs=4, batch_size=10)
        training = _GroupTraining(small_mlp, train, recipe, 0, CPU, groups=rows, sample_rate=rate)
        return [(batch, list(training.sizes)) for batch in training.batches()]

    full = batches(1.0)
    assert all(
        sizes == [2] * CLASSES and torch.equal(batch.y.bincount(), torch.full((CLASSES,), 2)) for batch, sizes in full
    )
    seen = {row.numpy().tobytes() for batch, _ in full for row in batch.x[batch.y == 0]}
    assert len(full) == 40 and len(seen) >= 15, "a stub that takes the first of a group has seen 2"
    taken = [len(sizes) for _, sizes in batches(0.5)]
    assert 0.35 < sum(taken) / (CLASSES * len(taken)) < 0.65


def test_replacing_a_whole_class_moves_the_sum_by_at_most_twice_the_norm(step, small_mlp, train):
    """Measured: 0.014 of 0.02 allowed; clipped record by record as DP-SGD does, 0.23."""
    other = train.x.clone()
    other[train.y == 2] = 1 - other[train.y == 2]
    replaced = Examples(other, train.y)

    def influence(defense, units):
        return units * float((step(defense, small_mlp, train) - step(defense, small_mlp, replaced)).norm())

    limit = 2 * 0.01
    assert influence(ClassDp(noise_multiplier=0.0, max_grad_norm=0.01), CLASSES) <= limit
    assert influence(DpSgd(noise_multiplier=0.0, max_grad_norm=0.01), len(train)) > limit


def test_without_noise_and_with_a_huge_norm_it_is_the_mean_of_the_class_means(step, small_mlp, train):
    def error(defense):
        means = [cross_entropy(small_mlp(train.x[train.y == k]), train.y[train.y == k]) for k in range(CLASSES)]
        gradient = torch.autograd.grad(torch.stack(means).mean(), list(small_mlp.parameters()))
        return float((step(defense, small_mlp, train) - torch.cat([g.flatten() for g in gradient])).abs().max())

    assert error(ClassDp(noise_multiplier=0.0, max_grad_norm=1e6)) < 1e-6
    assert error(ClassDp(noise_multiplier=0.0, max_grad_norm=0.1)) > 1e-3


def test_the_noise_has_the_stated_deviation(step, digits8, train):
    """More than 1e5 coordinates, so that the sample deviation is within 1 % of the true one."""
    torch.manual_seed(0)
    wide = Mlp(spec=digits8.spec, hidden=(500, 200))
    quiet = step(ClassDp(noise_multiplier=0.0, max_grad_norm=0.5), wide, train)
    noise = CLASSES * (step(ClassDp(noise_multiplier=3.0, max_grad_norm=0.5), wide, train) - quiet)
    assert len(noise) > 1e5
    assert float(noise.std()) == pytest.approx(1.5, rel=0.02)


def sampled_epsilon(noise, rate, steps, delta):
    """RDP of the subsampled Gaussian at whole orders (Mironov et al., 2019, eq. 9), converted as Opacus does."""

    def at(order):
        k = range(order + 1)
        binomial = [gammaln(order + 1) - gammaln(i + 1) - gammaln(order - i + 1) for i in k]
        terms = [
            binomial[i] + (order - i) * math.log1p(-rate) + i * math.log(rate) + (i * i - i) / (2 * noise**2) for i in k
        ]
        rdp = steps * logsumexp(terms) / (order - 1)
        return rdp - (math.log(delta) + math.log(order)) / (order - 1) + math.log1p(-1 / order)

    return min(at(order) for order in range(2, 64))


def test_epsilon_is_that_of_the_mechanism(fitted, gaussian_epsilon, small_mlp, train):
    """All groups in all steps have a closed form, sampled ones a series; RDP may only be above the exact value.

    Measured: 2.45 for exactly 2.26, and 2.581 for 2.587 of the series.
    """
    defense = ClassDp(noise_multiplier=8.0)
    fitted(defense, small_mlp, train, epochs=20, lr=1e-3)
    exact = gaussian_epsilon(math.sqrt(20) / 8.0, 1e-5)
    facts = defense.facts()
    assert exact <= facts["epsilon"] <= 1.15 * exact
    assert facts["epsilon"] > 2 * gaussian_epsilon(1 / 8.0, 1e-5), "forgetting 19 of 20 steps"
    assert (facts["delta"], facts["groups"], facts["unit"]) == (1e-5, CLASSES, "class")
    assert (facts["neighbours"], facts["accountant"]) == ("add or remove", "rdp")
    assert facts["epsilon_common"] == facts["epsilon"] and facts["delta_common"] == 1e-5
    assert rdp_epsilon(2.0, 0.1, 100, 1e-5) == pytest.approx(sampled_epsilon(2.0, 0.1, 100, 1e-5), rel=0.01)
    assert rdp_epsilon(0.0, 0.1, 100, 1e-5) == math.inf


def test_another_delta_leaves_the_common_epsilon_as_it_is(fitted, small_mlp, train):
    said = []
    for options in ({}, {"delta": 1e-3, "subclasses": 2}):
        defense = ClassDp(noise_multiplier=8.0, **options)
        fitted(defense, small_mlp, train, epochs=2, lr=1e-3)
        said.append(defense.facts())
    assert said[1]["epsilon_common"] == said[0]["epsilon_common"] > said[1]["epsilon"] + 0.1
    assert (said[1]["delta"], said[1]["delta_common"], said[1]["unit"]) == (1e-3, 1e-5, "subclass")


def test_subclasses_part_every_class(step, small_mlp, train):
    groups = ClassDp(subclasses=3).groups(train, 0)
    assert len(groups) == 3 * CLASSES
    assert sorted(torch.cat(groups).tolist()) == list(range(len(train)))
    assert all(len(train.y[rows].unique()) == 1 for rows in groups)
    defense = ClassDp(subclasses=3)
    step(defense, small_mlp, train)
    assert (defense.facts()["groups"], defense.facts()["unit"]) == (15, "subclass")


def test_it_learns_where_the_noise_is_weak_and_not_where_it_is_strong(small_mlp, digits8):
    """Measured: 0.93 at sigma 0.1, 0.15 at sigma 30 (five classes)."""

    def accuracy(noise):
        recipe = Recipe(epochs=8, batch_size=64, lr=1e-2)
        trained = ClassDp(noise_multiplier=noise, sample_rate=0.8).fit(
            Training(copy.deepcopy(small_mlp), digits8.private.train, recipe, 0, CPU)
        )
        return float(is_correct(trained.predict_proba, digits8.private.test).float().mean())

    assert accuracy(0.1) > 0.85
    assert accuracy(30.0) < 0.6


def test_steps_without_any_group_are_survived(small_mlp, train):
    recipe = Recipe(epochs=5, batch_size=50)
    trained = ClassDp(sample_rate=0.05).fit(Training(copy.deepcopy(small_mlp), train, recipe, 0, CPU))
    assert all(bool(p.isfinite().all()) for p in trained.parameters())


def test_the_defended_architecture_holds_no_batch_norm(digits8):
    kinds = {type(one) for one in ClassDp().architecture(Cnn(spec=digits8.spec, width=4), None).modules()}
    assert torch.nn.BatchNorm2d not in kinds


def test_a_cell_reports_the_guarantee(make_cell):
    cell = make_cell("defense=class_dp", "target.recipe.epochs=1", "target.recipe.min_steps=0", "dataset.size=8")
    assert {"epsilon", "delta", "groups", "accountant"} <= set(cell.victim.reported)
