"""The DCGAN networks of GMI's line of work.

The generator is that of the priors ``wgan_gp`` and ``inversion_gan``, which differ in the network that judges the
images; ``inpainting_gan`` is made of the same blocks.
"""

from __future__ import annotations

import math
from itertools import pairwise

from torch import Tensor, nn

from mibench.model import LatentPrior
from mibench.nn.adversarial import fitted


def doubling(before: int, after: int) -> nn.Sequential:
    """Return the generator's block that doubles the size."""
    return nn.Sequential(
        nn.ConvTranspose2d(before, after, 5, 2, 2, output_padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


def critic_layers(channels: int, width: int, halvings: int) -> nn.Sequential:
    """Return a critic of images of side ``4 * 2**halvings``, which it halves down to 4x4; the last layer scores.

    Instance norm, because batch norm would couple the samples whose gradients are penalised one by one.
    """
    widths = [width * 2**i for i in range(halvings)]
    down: list[nn.Module] = [nn.Conv2d(channels, width, 5, 2, 2), nn.LeakyReLU(0.2)]
    for before, after in pairwise(widths):
        down += [nn.Conv2d(before, after, 5, 2, 2), nn.InstanceNorm2d(after, affine=True), nn.LeakyReLU(0.2)]
    return nn.Sequential(*down, nn.Conv2d(widths[-1], 1, 4))


def initialise(network: nn.Module) -> None:
    """Draw the weights of all convolutions and linear layers from N(0, 0.02^2)."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0, 0.02)


class DcganPrior(LatentPrior):
    """A generator of square images that doubles 4x4 pixels up to their size; subclasses add the judge and a critic.

    A subclass builds its judge after this constructor and then calls :meth:`initialise`.

    Args:
        shape: Image shape ``(C, H, W)``, square, a multiple of 8 per side; sizes 4 * 2^n are native, others are
            resized.
        latent_dim: Dimension of z.
        width: Channels next to the image (64 in the papers).

    Attributes:
        seed_map: From a latent to 4x4 features.
        grow: From those to the image.
        doublings: Number of times that the size doubles from 4x4, and that a judge halves it.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.latent_dim = latent_dim
        self.size = (height, breadth)
        self.doublings = max(1, math.ceil(math.log2(max(height, breadth) / 4)))
        widths = [width * 2**i for i in reversed(range(self.doublings))]
        self.seed_map = nn.Sequential(
            nn.Linear(latent_dim, widths[0] * 16, bias=False), nn.BatchNorm1d(widths[0] * 16), nn.ReLU()
        )
        self.grow = nn.Sequential(
            *[doubling(before, after) for before, after in pairwise(widths)],
            nn.ConvTranspose2d(widths[-1], channels, 5, 2, 2, output_padding=1),
            nn.Sigmoid(),
        )

    def initialise(self) -> None:
        """Draw the weights of all convolutions and linear layers from N(0, 0.02^2)."""
        initialise(self)

    @property
    def makers(self) -> nn.ModuleList:
        """The modules of the generator."""
        return nn.ModuleList([self.seed_map, self.grow])

    def generate(self, z: Tensor) -> Tensor:
        """Return images of shape ``(N, C, H, W)`` in [0, 1]."""
        seed = self.seed_map(z).unflatten(1, (-1, 4, 4))
        return fitted(self.grow(seed), self.size).clamp(0, 1)

    def native(self, x: Tensor) -> Tensor:
        """Return images at the size that the judge takes, the next power of two."""
        side = 2 ** math.ceil(math.log2(max(self.size)))
        return fitted(x, (side, side))
