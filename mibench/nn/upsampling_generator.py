"""CI-Net's generator: noise to 4x4 features, then blocks of convolutions that double the size up to the image's.

The network of Zhang et al. (Generative Gradient Inversion via Over-Parameterized Networks, ICCV 2023), as in the
authors' code: two 3x3 convolutions with batch norm and LeakyReLU(0.1) per size, nearest-neighbour doubling between
sizes, a 1x1 convolution and a tanh at the end. Batch norm uses the batch's own statistics and remembers none.
Deviations: the tanh is brought to [0, 1]; spectral norm and biases of convolutions that a batch norm follows are left
out, because it undoes a scale of their weights and takes their bias away; sizes that are not 4 * 2^n are cut out of
the next one.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn


class UpsamplingGenerator(nn.Module):
    """A generator of images from noise vectors.

    Args:
        shape: Image shape ``(C, H, W)``.
        noise_dim: Dimension of the noise.
        width: Channels up to 32x32 pixels; half of them at 64x64, a quarter beyond.
    """

    def __init__(self, shape: tuple[int, ...], noise_dim: int = 128, width: int = 32) -> None:
        super().__init__()
        channels, *self.size = shape
        doublings = max(0, math.ceil(math.log2(max(self.size) / 4)))
        widths = [width // min(4, max(1, 2**doubled // 8)) for doubled in range(doublings + 1)]
        self.start = nn.Sequential(
            nn.ConvTranspose2d(noise_dim, width, 4, bias=False),
            nn.BatchNorm2d(width, track_running_stats=False),
            nn.LeakyReLU(0.1),
        )
        self.blocks = nn.ModuleList(_block(before, after) for before, after in pairwise([width, *widths]))
        self.image = nn.Conv2d(widths[-1], channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Return images of shape ``(N, C, H, W)`` in [0, 1] from noise of shape ``(N, noise_dim)``."""
        first, *others = self.blocks
        features = first(self.start(u[:, :, None, None]))
        for block in others:
            features = block(nn.functional.interpolate(features, scale_factor=2.0))
        height, breadth = self.size
        images: Tensor = (self.image(features)[..., :height, :breadth].tanh() + 1) / 2
        return images


def overparameterised_width(shape: tuple[int, ...], batch_size: int, noise_dim: int, width: int, factor: float) -> int:
    """Return ``width``, doubled until the generator has more than ``factor`` parameters per pixel of the batch."""
    pixels = batch_size * math.prod(shape[1:])
    while True:
        with torch.device("meta"):
            generator = UpsamplingGenerator(shape, noise_dim, width)
        if sum(parameter.numel() for parameter in generator.parameters()) > factor * pixels:
            return width
        width *= 2


def _block(before: int, after: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (before, after):
        layers += [
            nn.Conv2d(inputs, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after, track_running_stats=False),
            nn.LeakyReLU(0.1),
        ]
    return nn.Sequential(*layers)
