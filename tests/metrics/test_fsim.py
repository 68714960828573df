import math

import numpy as np
import piq
import pytest
import torch
from scipy.ndimage import correlate

from mibench.metrics.fsim import Fsim
from mibench.metrics.mse import squared_errors


def phase_congruency(image):
    """Kovesi's measure with the paper's constants, for a grey image of even sides with values from 0 to 255."""
    v, u = np.meshgrid(*map(np.fft.fftfreq, image.shape), indexing="ij")
    radius, angle = np.hypot(u, v), np.arctan2(-v, u)
    radius[0, 0] = 1
    low = 1 / (1 + (radius / 0.45) ** 30)
    energy, amplitude = np.zeros(image.shape), np.zeros(image.shape)
    for orientation in np.arange(4) * math.pi / 4:
        turn = np.abs(np.angle(np.exp(1j * (angle - orientation))))
        angular = np.exp(-(turn**2) / (2 * (math.pi / 4 / 1.2) ** 2))
        bank = []
        for wavelength in (6, 12, 24, 48):
            radial = np.exp(-(np.log(radius * wavelength) ** 2) / (2 * math.log(0.55) ** 2)) * low
            radial[0, 0] = 0
            bank.append(radial * angular)
        answers = [np.fft.ifft2(np.fft.fft2(image) * one) for one in bank]
        mean = sum(answers) / (np.abs(sum(answers)) + 1e-16)
        inner = [a * mean.conj() for a in answers]  # real part along the mean phase, imaginary part across it
        kernels = [np.fft.ifft2(one).real * math.sqrt(image.size) for one in bank]
        power = np.median(np.abs(answers[0]) ** 2) / math.log(2) / (bank[0] ** 2).sum()
        noise = power * (2 * sum((k**2).sum() for k in kernels)
                         + 4 * sum((kernels[i] * kernels[j]).sum() for i in range(4) for j in range(i)))  # fmt: skip
        tau = math.sqrt(noise / 2)
        threshold = tau * (math.sqrt(math.pi / 2) + 2 * math.sqrt(2 - math.pi / 2)) / 1.7
        energy += np.maximum(sum(one.real - np.abs(one.imag) for one in inner) - threshold, 0)
        amplitude += sum(np.abs(a) for a in answers)
    return energy / amplitude


def fsim_by_hand(x, y):
    """The paper's formula for colour or grey images ``(C, H, W)`` in [0, 1], in numpy."""
    yiq = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
    x, y = (np.tensordot(yiq, 255 * t, 1) if len(t) == 3 else 255 * t for t in (x, y))
    scharr = np.array([[3, 0, -3], [10, 0, -10], [3, 0, -3]]) / 16
    congruent = [phase_congruency(t[0]) for t in (x, y)]
    gradient = [np.hypot(*(correlate(t[0], k, mode="constant") for k in (scharr, scharr.T))) for t in (x, y)]

    def alike(a, b, constant):
        return (2 * a * b + constant) / (a**2 + b**2 + constant)

    weight = np.maximum(*congruent)
    score = alike(*congruent, 0.85) * alike(*gradient, 160) * weight
    if len(x) == 3:
        score = score * np.abs(alike(x[1], y[1], 200) * alike(x[2], y[2], 200)) ** 0.03
    return score.sum() / weight.sum()


def test_reference_values_of_the_patterns(patterns, paired, mean_of):
    a, b, c = patterns
    assert mean_of(Fsim(), *paired(a, a), variant="luminance") == pytest.approx(1, abs=1e-9)
    assert mean_of(Fsim(), *paired(a, b), variant="luminance") == pytest.approx(0.9808045, abs=1e-7)
    assert mean_of(Fsim(), *paired(a, c), variant="luminance") == pytest.approx(0.2155753, abs=1e-7)


@pytest.fixture
def textures():
    """Four images of random waves, smooth enough to have features, and the same with noise."""

    def make(channels, height, width):
        draw = torch.Generator().manual_seed(0)
        coarse = torch.rand(4, channels, height // 4, width // 4, generator=draw)
        x = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1)
        return x, (x + 0.1 * torch.randn(x.shape, generator=draw)).clamp(0, 1)

    return make


@pytest.mark.parametrize(("shape", "variant"), [((1, 32, 48), "luminance"), ((3, 64, 64), "chromatic")])
def test_agrees_with_the_paper_written_out_in_numpy(shape, variant, textures, paired):
    """To 5e-5: piq takes the lower of the two middle values as the median of the noise estimate."""
    x, guess = textures(*shape)
    (one,) = Fsim().measure(*paired(x, guess))
    expected = [fsim_by_hand(t, g) for t, g in zip(x.double().numpy(), guess.double().numpy(), strict=True)]
    assert one.values.numpy() == pytest.approx(expected, abs=5e-5)
    assert (one.variant, one.evaluator) == (variant, f"piq:{piq.__version__}")
    assert max(expected) < 0.95


def test_which_of_two_images_is_the_true_one_makes_no_difference(textures, paired):
    x, guess = textures(3, 48, 48)
    (one,), (other,) = Fsim().measure(*paired(x, guess)), Fsim().measure(*paired(guess, x))
    assert one.values.numpy() == pytest.approx(other.values.numpy(), abs=1e-9)


class InvertedError(Fsim):
    """The stub: one minus the root of the mean squared error, high for alike images too."""

    def measure(self, result, truth):
        (one,) = super().measure(result, truth)
        one.values[:] = 1 - squared_errors(result.values, truth.x).sqrt()
        return [one]


@pytest.mark.parametrize(("metric", "sees_features"), [(Fsim(), True), (InvertedError(), False)])
def test_features_count_and_not_the_light(metric, sees_features, textures, paired):
    """A lighter copy is the same picture, noise of the same squared error is not.

    The worst of four lighter copies has 0.994 and the best of the noisy ones 0.906; of the stub, 0.900 and 0.902.
    """
    x = 0.8 * textures(1, 64, 64)[0]
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    spoilt = (x + 0.1 * noise / noise.square().mean().sqrt()).clamp(0, 1)
    (lighter,), (noisy,) = metric.measure(*paired(x, x + 0.1)), metric.measure(*paired(x, spoilt))
    assert (float(lighter.values.min() - noisy.values.max()) > 0.04) == sees_features


def test_images_too_small_for_the_filters_give_a_reason(paired, completed):
    x = torch.rand(2, 1, 28, 28)
    (one,) = Fsim().measure(*paired(x, x))
    assert "32 pixels a side, and there are 28" in one.reason
    x, hole = torch.rand(2, 1, 48, 48), torch.zeros(1, 1, 48, 48, dtype=torch.bool)
    hole[..., 4:20, 4:20] = True
    whole, inside = Fsim().measure(*completed(x, x, hole))
    assert (whole.reason, whole.variant, inside.variant) == ("", "luminance", "hole_luminance")
    assert inside.reason and not len(inside.values)


def test_the_box_around_a_hole_is_compared_as_an_image_of_its_own(completed, paired, textures):
    x, guess = textures(1, 64, 64)
    hole = torch.zeros(1, 1, 64, 64, dtype=torch.bool)
    hole[..., 8:48, 8:48] = True
    _, inside = Fsim().measure(*completed(x, guess, hole))
    (expected,) = Fsim().measure(*paired(x[..., 8:48, 8:48], guess[..., 8:48, 8:48]))
    assert torch.equal(inside.values, expected.values)
