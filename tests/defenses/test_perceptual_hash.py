import pytest
import torch
from scipy.fft import dctn

from mibench.defenses.base import Defense
from mibench.defenses.perceptual_hash import PerceptualHash, middle, tiles
from mibench.errors import UserError
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.cnn import Cnn
from mibench.training import Recipe


def photos(n, size, seed=0):
    """Random natural images: amplitudes fall with the square of the frequency, values in [0.1, 0.9]."""
    draws = torch.Generator().manual_seed(seed)
    frequency = torch.fft.fftfreq(size)
    radius = (frequency[:, None] ** 2 + frequency**2).sqrt().clamp_min(1 / size)
    spectrum = torch.fft.fft2(torch.randn(n, 3, size, size, generator=draws)) / radius**1.5
    x = torch.fft.ifft2(spectrum).real
    low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    return 0.1 + 0.8 * (x - low) / (high - low)


def average_hash(x, grid):
    """A stub: the thresholded picture itself, which brightness moves."""
    grey = torch.nn.functional.interpolate(x.mean(1, keepdim=True), (8 * grid, 8 * grid), mode="area")
    return (grey > 0.5).float()


def test_the_output_is_binary_and_has_64_bits_per_patch():
    x = photos(3, 64)
    hashed = PerceptualHash(grid=4).input(x)
    assert hashed.shape == x.shape
    assert set(hashed.unique().tolist()) == {0.0, 1.0}
    assert tiles(x, 4).shape == (3, 1, 32, 32)
    assert torch.equal(hashed, hashed[:, :1].expand_as(hashed)), "grey"
    assert tiles(x, 4).mean() == pytest.approx(0.5, abs=0.02), "half of the coefficients are above the median"


def test_the_bits_are_those_of_scipys_transform():
    """One patch of 32 x 32 pixels, which is not resized."""
    x = photos(4, 32)
    for image, tile in zip(x, tiles(x, 1)[:, 0], strict=True):
        block = torch.from_numpy(dctn(image.mean(0).double().numpy(), norm="ortho")[1:9, 1:9].copy())
        assert ((block > block.flatten().sort().values[31]) == tile.bool()).float().mean() >= 62 / 64


def test_it_survives_brightness_and_compression():
    """Measured: all bits and 0.947 of them; of the stub, a threshold on the picture, 0.82 survive brightness."""
    x = photos(20, 64)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)) * 2 / 255

    def kept(make, changed):
        return float((make(x, 4) == make(changed, 4)).float().mean())

    assert kept(tiles, x + 10 / 255) >= 0.95
    assert kept(tiles, x + noise) >= 0.90
    assert kept(average_hash, x + 10 / 255) < 0.95


def test_the_nearest_hash_of_ten_thousand_is_another_image():
    """Measured: an error of 0.040 where the mean image has 0.038: a near hash is no near image."""
    secret, guesses = photos(1, 16, seed=7), photos(10000, 16, seed=8)

    def best(make):
        distance = (make(guesses, 1) != make(secret, 1)).float().flatten(1).mean(1)
        found = guesses[int(distance.argmin())]
        return float((found - secret[0]).square().mean())

    assert best(tiles) > 0.01
    known = torch.cat([guesses, secret])
    distance = (tiles(known, 1) != tiles(secret, 1)).flatten(1).sum(1)
    assert int(distance.argmin()) == len(guesses), "the hash does tell the image among others: it is no encryption"


def test_brightness_and_contrast_are_gone():
    """Unlike images with one hash: no decoder tells them apart."""
    x = photos(5, 32)
    other = 0.4 * x + 0.5
    assert torch.equal(tiles(x, 4), tiles(other, 4)) or (tiles(x, 4) == tiles(other, 4)).float().mean() > 0.99
    assert (x - other).square().mean() > 0.01


def test_only_the_middle_is_hashed_and_the_rest_clear_or_dropped():
    x = photos(2, 32)
    mask = middle(4, 4)
    assert mask[1:3, 1:3].sum() == 4 == mask.sum()
    clear = PerceptualHash(share=0.25).input(x)
    assert torch.equal(clear[..., :8, :], x[..., :8, :])
    assert set(clear[..., 8:24, 8:24].unique().tolist()) == {0.0, 1.0}
    dropped = PerceptualHash(share=0.25, rest="dropped").input(x)
    assert not dropped[..., :8, :].any() and torch.equal(dropped[..., 8:24, 8:24], clear[..., 8:24, 8:24])
    assert PerceptualHash(share=0.0).input(x) is x


def test_an_attacker_has_the_straight_through_gradient_of_any_order():
    x = photos(2, 16).requires_grad_(True)
    hashed = PerceptualHash().input(x)
    (first,) = torch.autograd.grad((hashed * torch.arange(16)).square().mean(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert first.isfinite().all() and first.abs().sum() > 0
    assert second.isfinite().all()


def test_it_stands_before_the_model_and_idle_changes_nothing(digits8, workshop):
    blueprint = Blueprint("cnn", lambda spec: Cnn(spec=spec, width=4), Recipe(epochs=2, batch_size=64), {})

    def answers(defense, key):
        victim = train_central(blueprint, digits8.private, digits8, defense, workshop, {"d": key}, 0, "victim")
        return victim.predict_proba(digits8.private.test.x)

    plain = answers(Defense(), "none")
    assert torch.equal(answers(PerceptualHash(share=0.0), "idle"), plain)
    assert not torch.equal(answers(PerceptualHash(), "active"), plain)


def test_more_bits_than_pixels_are_refused():
    with pytest.raises(UserError, match=r"defense\.grid=4"):
        PerceptualHash(grid=4).input(photos(1, 16))
