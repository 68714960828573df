import dataclasses

import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from mibench.data import Examples, Population
from mibench.leaderboard.scoring import score
from mibench.metrics.iip import Iip
from mibench.metrics.lpips import Lpips
from mibench.nn.neighbourhoods import distances
from mibench.tasks.base import Reconstruction


@pytest.fixture
def among(paired):
    """Makes answers and the truth of a batch of one per message among a pool: ``among(pool, sources, answers)``."""

    def make(pool, sources, answers, victim=None, valid=None):
        x, y = pool.x[sources], pool.y[sources]
        result, truth = paired(x, answers, y=y, valid=valid)
        return result, dataclasses.replace(truth, private=Population(pool, pool), victim=victim)

    return make


@pytest.fixture
def iip(tmp_path):
    """The metric without LPIPS's file."""
    return Iip(weights=tmp_path)


@pytest.fixture
def digits(digits8):
    """Forty digits of each of three classes."""
    train = digits8.private.train
    return train[torch.cat([torch.nonzero(train.y == label).flatten()[:40] for label in range(3)])]


EVERY = torch.arange(120)


def spoilt(x, strength):
    return (x + strength * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def nearest_by_sklearn(features, answers, y, **options):
    """The index of the nearest image of the same class, image by image."""
    found = torch.empty(len(answers), dtype=torch.long)
    for label in y.unique():
        own = torch.nonzero(y == label).flatten()
        index = NearestNeighbors(n_neighbors=1, algorithm="brute", **options).fit(features[own])
        found[own] = own[torch.from_numpy(index.kneighbors(answers[own])[1][:, 0])]
    return found


def test_agrees_with_sklearn_in_both_spaces(iip, digits, among, trained_cnn):
    answers = spoilt(digits.x, 0.3)
    pixel, victim, _, _ = iip.measure(*among(digits, EVERY, answers, trained_cnn))
    by_pixel = nearest_by_sklearn(digits.x.flatten(1), answers.flatten(1), digits.y)
    with torch.no_grad():
        seen, asked = trained_cnn.features(digits.x), trained_cnn.features(answers)
    by_victim = nearest_by_sklearn(seen, asked, digits.y, metric="cosine")
    assert torch.equal(pixel.values.bool(), by_pixel == EVERY)
    assert torch.equal(victim.values.bool(), by_victim == EVERY)
    assert (pixel.variant, victim.variant) == ("pixel", "victim")
    assert all(0.1 < float(one.values.mean()) < 0.9 for one in (pixel, victim))
    assert not torch.equal(pixel.values, victim.values)


def test_lpips_is_the_nearest_by_lpips_pair_by_pair(backbone, among):
    """With an untrained backbone: it tests which pairs are compared, not what LPIPS sees."""
    pool = Examples(
        torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 0, 0, 1, 1, 1])
    )
    answers = (0.5 * pool.x + 0.5 * pool.x[[1, 0, 2, 3, 3, 3]] + 0.02).clamp(0, 1)
    result, truth = among(pool, torch.arange(6), answers)
    lpips = Lpips(weights=backbone[0].parent)
    expected = []
    for i in range(6):
        same = torch.nonzero(pool.y == pool.y[i]).flatten()
        pairs = dataclasses.replace(truth, x=pool.x[same], target=same)
        (one,) = lpips.measure(Reconstruction(answers[i].expand(3, 3, 64, 64), same), pairs)
        expected.append(int(same[one.values.argmin()]) == i)
    measured = {one.variant: one for one in Iip(weights=backbone[0].parent).measure(result, truth)}
    assert measured["lpips"].values.bool().tolist() == expected
    assert measured["lpips"].evaluator == lpips.evaluator
    assert 0 < sum(expected) < 6


def test_without_the_backbone_lpips_alone_is_skipped(iip, digits, among, trained_cnn):
    result, truth = among(digits, EVERY, digits.x, trained_cnn)
    rows = {row.variant: row for row in score(iip, result, result, truth)}
    assert [rows[name].status for name in ("pixel", "victim", "lpips")] == ["ok", "ok", "skipped"]
    assert "alexnet-owt-7be5be79.pth" in rows["lpips"].reason


def test_exact_copies_are_all_identified_and_chance_is_one_over_the_gallery(iip, digits, among):
    pixel, _, chance = iip.measure(*among(digits, EVERY, digits.x))
    assert pixel.values.tolist() == [1] * 120
    assert chance.values.tolist() == pytest.approx([1 / 40] * 120)
    assert chance.yardstick


class AmongTheAnswers(Iip):
    """The stub, the survey's wording: the source's nearest among the reconstructions of its message."""

    def measure(self, result, truth):
        measured = super().measure(result, truth)
        between = distances(truth.x.flatten(1).double(), result.values.flatten(1).double())
        between = between.masked_fill(truth.target[:, None] != truth.target, torch.inf)
        hits = (between.argmin(1) == torch.arange(len(result))).double()
        return [dataclasses.replace(measured[0], values=hits), *measured[1:]]


@pytest.mark.parametrize(("metric", "is_at_chance"), [(Iip, True), (AmongTheAnswers, False)])
def test_an_answer_that_knows_nothing_is_at_chance(metric, is_at_chance, tmp_path, digits, among, mean_of):
    """One and the same image of noise for every source hits one of the 40 of each class; the stub has 1.0."""
    noise = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).expand(120, 1, 8, 8)
    value = mean_of(metric(weights=tmp_path), *among(digits, EVERY, noise), variant="pixel")
    assert (value == pytest.approx(1 / 40)) == is_at_chance


def test_falls_with_the_noise_from_1_to_chance(iip, digits, among, mean_of):
    """1.0, 0.54 and 0.08 where noise of 0.1, 0.5 and 2 is added to every pixel; chance is 0.025."""
    values = [mean_of(iip, *among(digits, EVERY, spoilt(digits.x, s)), variant="pixel") for s in (0.1, 0.5, 2.0)]
    assert values[0] == 1
    assert 0.4 < values[1] < 0.7
    assert values[2] < 0.15


def test_copies_of_the_source_are_the_source_and_no_rivals(iip, digits, among):
    """Five of class 0 are there twice: 43 others for each of those, 44 for the rest of the class, 39 elsewhere."""
    doubled = Examples(torch.cat([digits.x, digits.x[:5]]), torch.cat([digits.y, digits.y[:5]]))
    pixel, _, chance = iip.measure(*among(doubled, EVERY, digits.x))
    assert pixel.values.tolist() == [1] * 120
    assert (1 / chance.values).round().tolist() == [44] * 5 + [45] * 35 + [40] * 80


def test_images_of_other_classes_are_no_rivals(iip, digits, among):
    """An answer that is the exact image of another class is a miss or a hit by its own class alone."""
    alone = Examples(digits.x, torch.where(EVERY < 40, 0, 1))
    result, truth = among(alone, torch.arange(40), digits.x[40:80])
    pixel, _, chance = iip.measure(result, truth)
    without = Examples(digits.x[:40], torch.zeros(40, dtype=torch.long))
    expected, _, _ = iip.measure(*among(without, torch.arange(40), digits.x[40:80]))
    assert torch.equal(pixel.values, expected.values)
    assert 0 < float(pixel.values.mean()) < 0.5
    assert chance.values.tolist() == pytest.approx([1 / 40] * 40)


def test_the_victims_space_ignores_the_length_of_features(iip, linear_evaluator, among):
    """Features are the pixels: an answer at an eighth of the light is far in pixels, and in the very direction."""
    pool = Examples(torch.rand(12, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(12).long())
    victim = linear_evaluator(torch.zeros(2, 16)).model
    pixel, feature, _, _ = iip.measure(*among(pool, torch.arange(12), pool.x / 8, victim))
    assert feature.values.tolist() == [1] * 12
    assert float(pixel.values.mean()) < 0.5


def test_missing_answers_are_misses(iip, digits, among):
    valid = EVERY != 7
    pixel, _, _ = iip.measure(*among(digits, EVERY, digits.x, valid=valid))
    assert torch.equal(pixel.values.bool(), valid)


def test_a_source_alone_in_its_class_is_left_out(iip, digits, among):
    y = digits.y.clone()
    y[3] = 9
    pixel, _, chance = iip.measure(*among(Examples(digits.x, y), EVERY, digits.x))
    assert len(pixel.values) == len(chance.values) == 119
    assert 3 not in pixel.groups.tolist()
    result, truth = among(Examples(digits.x, y), torch.tensor([3, 3]), digits.x[:2])
    (row,) = score(iip, result, result, truth)
    assert (row.status, "in its class" in row.reason) == ("skipped", True)


def test_without_the_private_data_the_row_is_skipped(iip, digits, among):
    result, truth = among(digits, EVERY, digits.x)
    (row,) = score(iip, result, result, dataclasses.replace(truth, private=None))
    assert row.status == "skipped"
