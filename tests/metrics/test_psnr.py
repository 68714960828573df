import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio as skimage_psnr
from torchmetrics.functional.image import peak_signal_noise_ratio as torchmetrics_psnr

from mibench.errors import UserError
from mibench.metrics.psnr import Psnr


def test_reference_values(patterns, paired, mean_of):
    a, b, c = patterns
    metric = Psnr()
    assert mean_of(metric, *paired(a, b), variant="") == pytest.approx(26.12157, abs=1e-5)
    assert mean_of(metric, *paired(a, c), variant="") == pytest.approx(6.55482, abs=1e-5)
    grey = torch.full((1, 1, 8, 8), 0.5, dtype=torch.float64)
    assert mean_of(metric, *paired(grey, grey + 0.1), variant="") == pytest.approx(20.0, abs=1e-6)


def test_the_mean_of_decibels_agrees_with_torchmetrics_and_skimage(paired, mean_of):
    draw = torch.Generator().manual_seed(0)
    x = torch.rand(6, 3, 9, 7, generator=draw)
    # Images of very unlike quality: decibels of the pooled error, a usual mistake, are far off.
    guess = (x + torch.logspace(-3, -0.5, 6)[:, None, None, None] * torch.randn(x.shape, generator=draw)).clamp(0, 1)
    value = mean_of(Psnr(), *paired(x, guess), variant="")
    assert value == pytest.approx(float(torchmetrics_psnr(guess, x, data_range=1.0, dim=(1, 2, 3))), abs=1e-3)
    skimage = [skimage_psnr(t.numpy(), g.numpy(), data_range=1) for t, g in zip(x, guess, strict=True)]
    assert value == pytest.approx(sum(skimage) / 6, abs=1e-4)
    pooled = float(torchmetrics_psnr(guess, x, data_range=1.0))
    assert abs(value - pooled) > 5


def test_exact_images_are_capped_and_counted(paired, mean_of):
    x = torch.rand(4, 1, 8, 8)
    guess = torch.cat([x[:1], (x[1:] + 0.1)])
    result, truth = paired(x, guess)
    decibels, exact = Psnr(cap=80).measure(result, truth)
    assert decibels.values[0] == 80
    assert decibels.values[1:].numpy() == pytest.approx(20.0, abs=1e-4)
    assert exact.values.tolist() == [1, 0, 0, 0]


def test_a_missing_image_is_never_an_exact_one(paired):
    """Even where the private image happens to be the mid-grey that stands for no answer."""
    grey = torch.full((2, 1, 8, 8), 0.5)
    result, truth = paired(grey, grey, valid=torch.tensor([True, False]))
    _, exact = Psnr().measure(result, truth)
    assert exact.values.tolist() == [1, 0]


def test_the_cap_must_be_positive():
    with pytest.raises(UserError, match=r"psnr\.cap"):
        Psnr(cap=0)


def test_the_hole_of_a_completion_has_its_own_decibels(completed):
    """A quarter of the image is off by 0.1: 20 dB there, 10 log10(4) more over all of it."""
    x = torch.full((3, 1, 8, 8), 0.5, dtype=torch.float64)
    hole = torch.zeros(1, 1, 8, 8, dtype=torch.bool)
    hole[..., 2:6, 2:6] = True
    whole, inside, exact = Psnr().measure(*completed(x, x + 0.1 * hole, hole))
    assert (whole.variant, inside.variant, exact.variant) == ("", "hole", "exact")
    assert inside.values.tolist() == pytest.approx([20.0] * 3)
    assert whole.values.tolist() == pytest.approx([20.0 + 6.0206] * 3, abs=1e-4)
    assert inside.unit == "dB" and exact.values.tolist() == [0, 0, 0]
