"""Fixtures that tests of several attacks share."""

import pytest
import torch

from mibench.data import InputSpec
from mibench.priors.style_gan import StyleGan
from mibench.seeding import seeded


@pytest.fixture(scope="session")
def style_prior():
    """A style-based generator of random weights: its images differ enough for a classifier to tell them apart."""
    with seeded(0):
        network = StyleGan(latent_dim=16, w_dim=16, layers=2, base=128, width=16).network(
            InputSpec("image", (1, 8, 8), 4)
        )
    network.mean_style.copy_(network.mapping(torch.randn(500, 16)).mean(0).detach())
    return network.eval().requires_grad_(False)
