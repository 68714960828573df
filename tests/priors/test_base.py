"""Priors of inputs in another range than [0, 1]: a network of images, stretched where it is loaded."""

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.nn.wgan import WganGpNetworks
from mibench.pictures import MARGIN
from mibench.priors.base import PriorData, RangedPrior, loaded_prior, prior_key, train_prior, trained_prior
from mibench.priors.style_gan import StyleGan
from mibench.priors.wgan_gp import WganGp
from mibench.storage.store import Store
from mibench.storage.workshop import Workshop

IMAGES = InputSpec("image", (1, 8, 8), 2)
DECIBELS = InputSpec("audio", (1, 8, 8), 2, low=-80.0, high=0.0)
CPU = torch.device("cpu")
AT = Workshop(Store("unused"), CPU)


def public(spec):
    x = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return Examples(spec.low + (spec.high - spec.low) * x, torch.zeros(64, dtype=torch.long))


def small():
    return WganGp(iterations=10, width=4, latent_dim=8, batch_size=8, n_critic=1, lr=0.01)


@pytest.fixture(scope="module")
def both():
    """The prior of images and that of decibels, trained on the same public data but for their range."""
    return [
        loaded_prior(small(), spec, train_prior(small(), PriorData(public(spec), spec), AT, 0), CPU, 0)
        for spec in (IMAGES, DECIBELS)
    ]


def test_images_get_the_network_itself(both):
    assert type(both[0]) is WganGpNetworks and isinstance(both[1], RangedPrior)
    assert both[1].name == "wgan_gp" and both[1].latent_dim == 8


def test_decibels_are_the_images_stretched(both):
    images, decibels = both
    z = images.sample_latent(16, torch.Generator().manual_seed(1))
    assert torch.equal(z, decibels.sample_latent(16, torch.Generator().manual_seed(1)))
    made = decibels.generate(z)
    assert -80 <= float(made.min()) < float(made.max()) <= 0
    assert torch.allclose(made, -80 + 80 * images.generate(z), atol=0.05), "trained on the very same numbers"
    assert float(made.std()) > 1


def test_the_critic_takes_decibels(both):
    images, decibels = both
    assert torch.allclose(decibels.critic(public(DECIBELS).x), images.critic(public(IMAGES).x), atol=1e-4)
    assert not torch.allclose(images.critic(public(DECIBELS).x), images.critic(public(IMAGES).x), atol=1e-2)


def test_a_gradient_reaches_the_latents(both):
    z = torch.zeros(2, 8, requires_grad=True)
    (slope,) = torch.autograd.grad(both[1].critic(both[1].generate(z)).sum(), z)
    assert float(slope.abs().sum()) > 0


def test_the_network_is_trained_on_numbers_in_the_range_of_images(monkeypatch):
    seen = []
    monkeypatch.setattr(WganGp, "train", lambda self, network, data, seed, device: seen.append(data))
    for spec in (IMAGES, DECIBELS):
        train_prior(small(), PriorData(public(spec), spec), AT, 0)
    assert torch.equal(seen[0].public.x, public(IMAGES).x)
    assert torch.allclose(seen[1].public.x, public(IMAGES).x, atol=1e-6)
    assert (seen[1].spec.low, seen[1].spec.high, seen[1].spec.modality) == (0, 1, "audio")


def test_the_range_is_part_of_the_key_where_it_is_not_that_of_images():
    keys = [prior_key(small(), {}, PriorData(public(spec), spec), 0) for spec in (IMAGES, DECIBELS)]
    assert "range" not in keys[0] and keys[1]["range"] == [-80, 0]


def test_a_stored_prior_is_stretched_too(workshop):
    made = [
        trained_prior(small(), {}, PriorData(public(DECIBELS), DECIBELS), workshop, 0).generate(torch.zeros(4, 8))
        for _ in range(2)
    ]
    assert float(made[0].max()) < -1 and torch.equal(*made)
    (sheet,) = workshop.store.root.rglob("samples.png")
    tile = np.asarray(Image.open(sheet))[60:140, MARGIN : MARGIN + 80]
    assert 30 < tile.mean() < 225, "decibels are drawn as grey, and not clipped to black"


def test_a_prior_that_is_searched_otherwise_is_refused():
    with pytest.raises(UserError, match=r"prior=style_gan makes images in \[0, 1\], but the inputs here lie in \[-80"):
        train_prior(StyleGan(), PriorData(public(DECIBELS), DECIBELS), AT, 0)
