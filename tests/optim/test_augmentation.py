import pytest
import torch

from mibench.optim.augmentation import Views

IMAGES = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_no_transform_is_the_image_itself():
    assert torch.equal(Views()(IMAGES, draws()), IMAGES)


def test_a_mirror_is_exact_and_each_sample_has_its_own_draw():
    assert torch.allclose(Views(mirror=1.0)(IMAGES, draws()), IMAGES.flip(3), atol=1e-5)
    halves = Views(mirror=0.5)(torch.cat([IMAGES] * 20), draws()).reshape(20, 6, 3, 16, 16)
    kept = [torch.allclose(one, image, atol=1e-5) for copy in halves for one, image in zip(copy, IMAGES, strict=True)]
    assert 40 < sum(kept) < 80


def test_a_crop_of_a_quarter_of_the_area_lies_within_the_image():
    """On an image whose value is its column, a crop of half the width spans half the range."""
    ramp = (torch.arange(64.0) / 63).expand(50, 1, 64, 64)
    views = Views(scale=(0.25, 0.25))(ramp, draws())
    spans = views.amax((1, 2, 3)) - views.amin((1, 2, 3))
    assert torch.allclose(spans, torch.tensor(0.5), atol=0.03)
    starts = views.amin((1, 2, 3))
    assert starts.min() < 0.1 and starts.max() > 0.4, "crops lie anywhere"


def test_a_rotation_turns_by_the_angle_at_most():
    """The bright half plane's border turns; its mean stays, and pixels far from the border do not change."""
    half = torch.zeros(30, 1, 33, 33)
    half[..., 17:] = 1
    turned = Views(rotation=10.0)(half, draws())
    assert (turned[..., 16, 28] > 0.99).all() and (turned[..., 16, 4] < 0.01).all()
    assert (turned - half).abs().sum() > 0
    top, bottom = turned[:, 0, 2].sum(1), turned[:, 0, 30].sum(1)
    assert 1 < (top - bottom).abs().max() < 2 * 14 * 0.18 * 1.2


def test_jitter_keeps_the_range_and_contrast_the_mean():
    assert (Views(brightness=0.5)(IMAGES, draws()).amax() <= 1) and not torch.equal(
        Views(brightness=0.5)(IMAGES, draws()), IMAGES
    )
    grey = 0.4 + 0.2 * IMAGES
    assert torch.allclose(Views(contrast=0.2)(grey, draws()).mean((1, 2, 3)), grey.mean((1, 2, 3)), atol=1e-5)


@pytest.mark.parametrize("views", [Views(scale=(0.8, 1), rotation=5, mirror=0.5, brightness=0.2, contrast=0.2)])
def test_a_view_is_reproducible_and_differentiable(views):
    images = IMAGES.clone().requires_grad_(True)
    view = views(images, draws(3))
    assert torch.equal(view, views(images, draws(3))) and not torch.equal(view, views(images, draws(4)))
    (gradient,) = torch.autograd.grad(view.sum(), images)
    assert (gradient.flatten(1).abs().sum(1) > 0).all() and view.shape == images.shape
