import numpy as np
import pytest
import torch

from mibench.metrics.avd import Avd
from mibench.metrics.mse import Mse

STEP = torch.zeros(1, 1, 4, 4)
STEP[..., 2:] = 1
FLAT = torch.zeros(1, 1, 4, 4)


def avd_by_hand(x, y):
    """The code's formula pixel by pixel, for images ``(C, H, W)`` in [0, 1]."""

    def at(image, c, i, j):
        first = abs(image[c, i, j] - image[c, i, j - 1] + image[c, i, j] - image[c, i - 1, j])
        second = (
            image[c, i, j] - 2 * image[c, i, j - 1] + image[c, i, j - 2]
            + image[c, i, j] - 2 * image[c, i - 1, j] + image[c, i - 2, j]
        )  # fmt: skip
        return first, abs(second)

    x, y = (np.floor(255 * t) / 255 for t in (x, y))
    channels, height, width = x.shape
    firsts, seconds = [], []
    for c in range(channels):
        for i in range(1, height):
            for j in range(1, width):
                (a, aa), (b, bb) = (at(t, c, i, j) for t in (x, y))
                firsts.append((a - b) ** 2)
                seconds += [(aa - bb) ** 2] if i > 1 and j > 1 else []
    return np.sqrt(np.mean(firsts) + np.mean(seconds) / 2)


def test_reference_values(patterns, paired, mean_of):
    a, b, c = patterns
    assert mean_of(Avd(), *paired(STEP, FLAT), variant="code") == pytest.approx(0.9128709, abs=1e-7)
    assert mean_of(Avd(), *paired(a, b), variant="code") == pytest.approx(0.0104416, abs=1e-7)
    assert mean_of(Avd(), *paired(a, c), variant="code") == pytest.approx(0.5378124, abs=1e-7)


def test_agrees_with_the_formula_pixel_by_pixel(paired):
    x, guess = torch.rand(2, 3, 3, 9, 7, generator=torch.Generator().manual_seed(0)).double()
    (one,) = Avd().measure(*paired(x, guess))
    assert one.values.numpy() == pytest.approx(
        [avd_by_hand(t.numpy(), g.numpy()) for t, g in zip(x, guess, strict=True)]
    )


def test_the_papers_formula_agrees_with_numpys_differences(paired):
    x, guess = torch.rand(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    (one,) = Avd(variant="paper").measure(*paired(x, guess))
    fields = []
    for image in (x[0, 0].numpy(), guess[0, 0].numpy()):
        steep = np.sqrt(np.diff(image, axis=1)[1:] ** 2 + np.diff(image, axis=0)[:, 1:] ** 2)
        bent = np.abs(np.diff(image, n=2, axis=1)[2:] + np.diff(image, n=2, axis=0)[:, 2:])
        fields.append((steep, bent))
    (steep, bent), (other_steep, other_bent) = fields
    expected = np.sqrt(((steep - other_steep) ** 2).mean()) + np.sqrt(((bent - other_bent) ** 2).mean())
    assert float(one.values[0]) == pytest.approx(expected)
    assert one.variant == "paper"


def test_the_papers_formula_sees_the_slope_to_which_the_code_is_blind(paired, mean_of):
    """Rising by 0.1 a pixel to the right and falling as fast downwards: a gradient of length 0.1 times root 2."""
    ramp = torch.arange(6).double() / 10
    slope = (0.5 + (ramp[None] - ramp[:, None]) / 2)[None, None]
    flat = torch.full_like(slope, 0.5)
    assert mean_of(Avd(variant="paper"), *paired(slope, flat), variant="paper") == pytest.approx(0.05 * 2**0.5)
    assert mean_of(Avd(), *paired(slope, flat), variant="code") < 0.01


@pytest.mark.parametrize("variant", ["code", "paper"])
def test_is_blind_to_brightness_and_to_the_negative(variant, patterns, paired, mean_of):
    """By design, so it is never to be read alone. The cut to 8 bits moves a pixel by less than 1/255."""
    x = 0.8 * patterns[0]
    for same in (x + 0.1, 1 - x):
        assert mean_of(Mse(), *paired(x, same)) > 0.009
        assert mean_of(Avd(variant=variant), *paired(x, same), variant=variant) < 0.01
    flat = torch.full((1, 1, 8, 8), 0.2)
    assert mean_of(Avd(variant=variant), *paired(flat, 4 * flat), variant=variant) == 0


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_cutting_to_8_bits_truncates_and_leaves_8_bit_images_as_they_are(precision, paired):
    levels = (torch.arange(256, dtype=precision) / 255).reshape(1, 1, 16, 16)
    cut = (levels + 0.9 / 255).clamp_max(1)  # rounding would take it to the next level
    (one,) = Avd().measure(*paired(levels, cut))
    assert one.values.tolist() == [0]


class SquaredError(Avd):
    """The stub: the distance between pixels instead of between variations."""

    def measure(self, result, truth):
        (one,) = Mse().measure(result, truth)
        return [one]


@pytest.mark.parametrize(("metric", "sees_variation"), [(Avd(), True), (SquaredError(), False)])
def test_noise_hides_more_than_light(metric, sees_variation, patterns, paired):
    """With one squared error, the lighter copy has 0.007 and the noisy one 0.34; the stub has 0.01 for both."""
    x = 0.8 * patterns[0]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double().clamp(-1, 1)
    noisy = (x + 0.1 * noise / noise.square().mean().sqrt()).clamp(0, 1)
    (light,), (rough,) = metric.measure(*paired(x, x + 0.1)), metric.measure(*paired(x, noisy))
    assert (float(rough.values[0]) > 10 * float(light.values[0])) == sees_variation


def test_the_box_around_a_hole_is_compared_as_an_image_of_its_own(completed, paired):
    x, guess = torch.rand(2, 2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., 4:12, 3:10] = True
    _, inside = Avd().measure(*completed(x, guess, hole))
    (expected,) = Avd().measure(*paired(x[..., 4:12, 3:10], guess[..., 4:12, 3:10]))
    assert torch.equal(inside.values, expected.values)
    assert inside.variant == "hole_code"
