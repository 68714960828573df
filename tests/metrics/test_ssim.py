import numpy as np
import pytest
import torch
from scipy.ndimage import correlate
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from mibench.metrics.ssim import Ssim


def test_reference_values_of_the_patterns(patterns, paired, mean_of):
    a, b, c = patterns
    metric = Ssim()
    assert mean_of(metric, *paired(a, b), variant="window11") == pytest.approx(0.9532584, abs=1e-7)
    assert mean_of(metric, *paired(a, c), variant="window11") == pytest.approx(0.0116476, abs=1e-7)
    # Padding implementations are another metric: off in the third digit.
    assert abs(float(structural_similarity_index_measure(b, a, data_range=1.0)) - 0.9532584) > 1e-3


def test_constant_images_have_a_closed_form(paired, mean_of):
    x = torch.full((1, 1, 16, 16), 0.2)
    assert mean_of(Ssim(), *paired(x, x * 4), variant="window11") == pytest.approx(0.4706661, abs=1e-6)


@pytest.mark.parametrize("shape", [(1, 20, 16), (3, 32, 32), (3, 11, 40), (1, 400, 390)])
def test_agrees_with_skimage_in_grey_and_colour_at_any_size(shape, paired):
    """The last size is one at which piq would shrink the images by default."""
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(2, *shape, generator=draw)
    guess = (x + 0.2 * torch.randn(x.shape, generator=draw)).clamp(0, 1)
    (one,) = Ssim().measure(*paired(x, guess))
    convention = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    pairs = zip(x.double().numpy(), guess.double().numpy(), strict=True)
    expected = [structural_similarity(t, g, channel_axis=0, **convention) for t, g in pairs]
    assert one.values.numpy() == pytest.approx(expected, abs=1e-6)
    assert one.variant == "window11"
    assert one.evaluator.startswith("piq:")


def windowed_ssim(x, y, size):
    """Wang's formula with a ``size`` x ``size`` Gaussian window, over windows inside the image."""
    offset = np.arange(size) - size // 2
    line = np.exp(-(offset**2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2

    def local(values):
        return correlate(values, window)[size // 2 : -(size // 2), size // 2 : -(size // 2)]

    mx, my = local(x), local(y)
    vx, vy, cov = local(x * x) - mx**2, local(y * y) - my**2, local(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


@pytest.mark.parametrize(("side", "window"), [(8, 7), (9, 9), (10, 9), (11, 11)])
def test_small_images_get_the_largest_odd_window_and_say_so(side, window, paired):
    draw = torch.Generator().manual_seed(side)
    x, guess = torch.rand(2, 1, 1, side, side, generator=draw)
    (one,) = Ssim().measure(*paired(x, guess))
    assert one.variant == f"window{window}"
    expected = windowed_ssim(x[0, 0].double().numpy(), guess[0, 0].double().numpy(), window)
    assert float(one.values[0]) == pytest.approx(expected, abs=1e-6)


def test_the_box_around_a_hole_is_compared_as_an_image_of_its_own(completed, paired):
    draw = torch.Generator().manual_seed(0)
    x, guess = torch.rand(2, 2, 1, 32, 32, generator=draw)
    hole = torch.zeros(1, 1, 32, 32, dtype=torch.bool)
    hole[..., 4:20, 10] = hole[..., 6, 3:25] = True
    whole, inside = Ssim().measure(*completed(x, guess, hole))
    box = slice(4, 20), slice(3, 25)
    (expected,) = Ssim().measure(*paired(x[..., *box], guess[..., *box]))
    assert torch.equal(inside.values, expected.values) and not torch.equal(whole.values, inside.values)
    assert (whole.variant, inside.variant) == ("window11", "hole_window11")


def test_a_small_hole_in_constant_images_has_its_closed_form(completed):
    """Equal but for a hole of 4x4 pixels, 0.2 there and 0.8 in the guess: the value of two constant images."""
    x = torch.full((1, 1, 16, 16), 0.2)
    hole = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    hole[..., 4:8, 4:8] = True
    _, inside = Ssim().measure(*completed(x, x + 0.6 * hole, hole))
    assert inside.variant == "hole_window3"
    assert float(inside.values[0]) == pytest.approx(0.4706661, abs=1e-6)
