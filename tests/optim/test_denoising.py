import torch
from torch.nn import functional

from mibench.optim.denoising import nl_means, sharpen


def edge():
    """A black and a white half, and the same under noise."""
    clean = torch.zeros(1, 1, 16, 16)
    clean[..., 8:] = 1
    return clean, clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))


def error(images, clean):
    return float((images - clean).square().mean().sqrt())


def test_non_local_means_take_the_noise_and_leave_the_edge():
    clean, noisy = edge()
    blurred = functional.avg_pool2d(functional.pad(noisy, [3] * 4, mode="replicate"), 7, 1)
    denoised = nl_means(noisy, strength=0.2)
    assert error(denoised, clean) < 0.5 * error(noisy, clean)
    assert error(blurred, clean) > error(noisy, clean)  # a mean that does not look at the surroundings


def test_a_pixel_is_a_mean_of_pixels():
    _, noisy = edge()
    denoised = nl_means(noisy)
    assert float(noisy.min()) <= float(denoised.min()) <= float(denoised.max()) <= float(noisy.max())
    plane = torch.full((2, 3, 8, 8), 0.3)
    torch.testing.assert_close(nl_means(plane), plane)


def test_images_are_denoised_each_for_itself():
    pair = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(nl_means(pair)[1:], nl_means(pair[1:]))


def test_sharpening_raises_edges_and_leaves_planes():
    soft = torch.linspace(0.3, 0.7, 2).repeat_interleave(4).expand(1, 1, 8, 8)
    sharp = sharpen(soft, amount=0.5)
    assert float(sharp[0, 0, 4, 4] - sharp[0, 0, 4, 3]) > float(soft[0, 0, 4, 4] - soft[0, 0, 4, 3])
    torch.testing.assert_close(sharp[..., :2], soft[..., :2])
    assert torch.equal(sharpen(soft, amount=0.0), soft)
    assert 0 <= float(sharpen(soft, amount=9.0).min()) <= float(sharpen(soft, amount=9.0).max()) <= 1
