import dataclasses

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from mibench.data import Examples
from mibench.leaderboard.scoring import score
from mibench.metrics.rdlv import Rdlv, relative_gain
from mibench.metrics.ssim import similarities

FORMS = ("matched_window11", "max_window11", "difference_window11")


@pytest.fixture
def scene(paired):
    """Makes a reconstruction and a truth of smooth images beside public ones: ``scene(batch)``.

    All show one common picture, each with some of its own.
    """

    def make(batch=2, size=6, guess=None, public=None):
        draw = torch.Generator().manual_seed(0)

        def pictures(count):
            return torch.nn.functional.interpolate(torch.rand(count, 1, 6, 6, generator=draw), (24, 24), mode="bicubic")

        common = pictures(1)
        x, others = ((0.6 * common + 0.4 * pictures(count)).clamp(0, 1) for count in (size, 40))
        noisy = (x + 0.05 * torch.randn(x.shape, generator=draw)).clamp(0, 1)
        result, truth = paired(x, noisy if guess is None else guess(x, others), batch)
        shown = others if public is None else public
        return result, dataclasses.replace(truth, public=Examples(shown, torch.zeros(len(shown)).long()))

    return make


def by_hand(x, y):
    return structural_similarity(
        x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=0
    )


def test_reference_value_of_the_patterns(patterns):
    a, b, c = patterns
    assert float(relative_gain(similarities(b, a), similarities(c, a))) == pytest.approx(80.84, abs=0.01)


def test_agrees_with_skimage_image_by_image_and_pair_by_pair(scene):
    result, truth = scene(batch=3)
    prior = truth.public.x.double().mean(0).numpy()
    x, made = truth.x.double().numpy(), result.values.double().numpy()
    without = np.array([by_hand(prior, t) for t in x])
    assert without.min() > 0.05
    matched = np.array([by_hand(g, t) for g, t in zip(made, x, strict=True)])
    largest = [
        max((by_hand(made[j], x[i]) - without[i]) / without[i] for i in rows for j in rows)
        for rows in ((0, 1, 2), (3, 4, 5))
    ]
    measured = {one.variant: one for one in Rdlv().measure(result, truth)}
    assert tuple(measured) == FORMS
    expected = ((matched - without) / without, largest, matched - without)
    for form, numbers in zip(FORMS, expected, strict=True):
        assert measured[form].values.numpy() == pytest.approx(np.array(numbers), abs=1e-6)
    assert [len(one.groups) for one in measured.values()] == [6, 2, 6]


def test_the_prior_itself_gains_nothing_and_the_truth_all_there_is(scene, mean_of):
    prior = scene(guess=lambda x, others: others.double().mean(0).expand_as(x))
    for form in FORMS:
        assert mean_of(Rdlv(), *prior, variant=form) == pytest.approx(0, abs=1e-9)
    result, truth = scene(guess=lambda x, others: x)
    without = similarities(truth.public.x.double().mean(0).expand_as(truth.x), truth.x)
    (matched, _, difference) = Rdlv().measure(result, truth)
    assert matched.values.numpy() == pytest.approx((1 / without - 1).numpy(), rel=1e-6)
    assert difference.values.numpy() == pytest.approx((1 - without).numpy(), rel=1e-6)


class Similarity(Rdlv):
    """The stub: the similarity itself, whatever could be had without the message."""

    def measure(self, result, truth):
        measured = super().measure(result, truth)
        values = similarities(result.values, truth.x)
        return [dataclasses.replace(measured[0], values=values, groups=truth.target), *measured[1:]]


@pytest.mark.parametrize(("metric", "relative"), [(Rdlv(), True), (Similarity(), False)])
def test_what_was_public_is_no_leak(metric, relative, scene, mean_of):
    """Other pictures of the kind have -0.13, the reconstructions 0.26; the stub's are 0.62 and 0.90."""
    public = mean_of(metric, *scene(guess=lambda x, others: others[: len(x)]), variant=FORMS[0])
    leaked = mean_of(metric, *scene(), variant=FORMS[0])
    assert leaked > 0.1
    assert (public < 0) == relative


def test_images_unlike_the_prior_are_left_out_and_counted(scene):
    result, truth = scene()
    x = truth.x.clone()
    x[:3] = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(0))  # message 0, and half of message 1
    truth = dataclasses.replace(truth, x=x)
    matched, largest, difference = Rdlv().measure(result, truth)
    assert matched.groups.tolist() == [1, 2, 2]
    assert largest.groups.tolist() == [1, 2]
    assert difference.groups.tolist() == [0, 0, 1, 1, 2, 2]
    assert all(bool(one.values.isfinite().all()) for one in (matched, largest, difference))


def test_a_prior_of_noise_gives_a_reason_and_the_difference(scene):
    noise = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    result, truth = scene(public=noise)
    rows = {row.variant: row for row in score(Rdlv(), result, result, truth)}
    for form in FORMS[:2]:
        assert rows[form].status == "skipped"
        assert "at least 0.05" in rows[form].reason
    assert rows[FORMS[2]].status == "ok"


def test_the_largest_ignores_the_order_and_other_messages(scene):
    result, truth = scene(batch=3)
    _, largest, _ = Rdlv().measure(result, truth)
    swapped = dataclasses.replace(result, values=result.values[torch.tensor([2, 0, 1, 4, 5, 3])])
    _, again, _ = Rdlv().measure(swapped, truth)
    assert torch.equal(largest.values, again.values)
    elsewhere = dataclasses.replace(result, values=result.values.roll(3, 0))
    _, other, _ = Rdlv().measure(elsewhere, truth)
    assert (other.values < largest.values).all()


def test_the_control_is_measured_against_the_same_prior(scene):
    """The next message's reconstructions gain nothing: RDLV below 0, and a lift above the value."""
    result, truth = scene(batch=2)
    control = dataclasses.replace(result, values=result.values.roll(-2, 0))
    row = score(Rdlv(), result, control, truth)[0]
    (expected, _, _) = Rdlv().measure(control, truth)
    assert row.control == pytest.approx(float(expected.values.mean()))
    assert row.value > 0 > row.control
    assert row.lift == pytest.approx(row.value - row.control)


def test_without_public_images_the_row_is_skipped(scene):
    result, truth = scene()
    (row,) = score(Rdlv(), result, result, dataclasses.replace(truth, public=None))
    assert (row.status, "public images" in row.reason) == ("skipped", True)
