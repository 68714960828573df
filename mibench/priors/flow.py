r"""A normalising flow of public images: every image has exactly one latent, and an exact likelihood.

Dinh et al., Density Estimation Using Real NVP, ICLR 2017, in the form of Kingma and Dhariwal, Glow: Generative Flow
with Invertible 1x1 Convolutions, NeurIPS 2018. Needs public images. With :math:`f` invertible, :math:`v` the pixels,
the flow descends the mean over public images of the bits per dimension

.. math:: b(x) = -\tfrac{1}{D} \log_2 p(v), \qquad
    \log p(v) = \log N(f(v); 0, I) + \log |\det \partial f / \partial v|

1. *Dequantisation*: :math:`v = (255 x + u) / 256` with uniform noise :math:`u \in [0, 1)`, drawn anew at each step and
   1/2 in use; bits are those of 256 levels. Then :math:`\mathrm{logit}(\alpha + (1 - 2 \alpha) v)`, :math:`\alpha =
   0.05`.
2. *Levels*: 2x2 pixels become channels; ``depth`` steps follow, each a scale and shift per channel (set by the first
   batch to mean 0 and deviation 1), a rotation of the channels, and an affine coupling, in which a small network of one
   half of the channels scales and shifts the other; then half of the channels leave as latents.

``generate`` is :math:`f^{-1}`. The critic is :math:`-b(x)`: larger is more like the public images.

Inferred: the length of the training, and all sizes below 32 pixels. Deviations from Glow: the rotations are random and
stay as they are, which keeps the determinant at 1; latents that leave a level are standard normal, as in Real NVP, and
not conditioned on the rest; log-scales are bounded. Sizes that the levels do not divide are resized to the next one
that they do.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, logsigmoid, pixel_shuffle, pixel_unshuffle

from mibench.card import PriorCard
from mibench.data import InputSpec
from mibench.model import LatentPrior
from mibench.nn.adversarial import fitted, step_along
from mibench.nn.flow import bounded
from mibench.options import Count, Positive
from mibench.precision import widened
from mibench.priors.base import ImagePrior, PriorData
from mibench.seeding import derive, generator

#: Real NVP's distance of the logit's argument from 0 and 1.
ALPHA = 0.05


class FlowStep(nn.Module):
    """Scale and shift per channel, rotation of the channels, affine coupling; the identity but for the rotation.

    Args:
        channels: Channels, at least 2.
        width: Hidden channels of the coupling's network.
    """

    rotation: Tensor

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.first = channels // 2
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1, 1))
        self.register_buffer("rotation", torch.linalg.qr(torch.randn(channels, channels))[0])
        last = nn.Conv2d(width, 2 * (channels - self.first), 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.coupling = nn.Sequential(
            nn.Conv2d(self.first, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.ReLU(), last
        )

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return features of the same shape and :math:`\log |\det|`, shape ``(N,)``."""
        h = (h + self.shift) * self.log_scale.exp()
        first, second = self._parted(conv2d(h, self.rotation[:, :, None, None]))
        log_scale, shift = self._coupled(first)
        log_det = h.shape[2] * h.shape[3] * self.log_scale.sum() + log_scale.flatten(1).sum(1)
        return torch.cat([first, second * log_scale.exp() + shift], 1), log_det

    def inverse(self, h: Tensor) -> Tensor:
        """Return the features that :meth:`forward` maps to ``h``."""
        first, second = self._parted(h)
        log_scale, shift = self._coupled(first)
        h = torch.cat([first, (second - shift) * (-log_scale).exp()], 1)
        return conv2d(h, self.rotation.T[:, :, None, None]) * (-self.log_scale).exp() - self.shift

    @torch.no_grad()
    def calibrate(self, h: Tensor) -> Tensor:
        """Set scale and shift so that each channel of ``h`` gets mean 0 and deviation 1; return what comes out."""
        self.shift.copy_(-h.mean((0, 2, 3))[:, None, None])
        self.log_scale.copy_(-(h.std((0, 2, 3)) + 1e-6).log()[:, None, None])
        out: Tensor = self(h)[0]
        return out

    def _parted(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return h[:, : self.first], h[:, self.first :]

    def _coupled(self, first: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-scale and shift of the second part."""
        log_scale, shift = self.coupling(first).chunk(2, 1)
        return bounded(log_scale), shift


class FlowNetworks(LatentPrior):
    """The flow.

    Args:
        shape: Image shape ``(C, H, W)``.
        levels: Most levels.
        depth: Steps of each.
        width: Hidden channels of the couplings.
    """

    name = "flow"

    def __init__(self, shape: tuple[int, ...], levels: int, depth: int, width: int) -> None:
        super().__init__()
        channels, height, breadth = shape
        self.size = (height, breadth)
        levels = max(1, min(levels, int(math.log2(min(self.size)))))
        self.native = (_up(height, 2**levels), _up(breadth, 2**levels))
        self.latent_dim = channels * self.native[0] * self.native[1]
        self.depth = depth
        self.shapes = [
            (channels * 2 ** (level + 1), self.native[0] >> level, self.native[1] >> level)
            for level in range(1, levels + 1)
        ]
        self.steps = nn.ModuleList([FlowStep(shape[0], width) for shape in self.shapes for _ in range(depth)])

    def level(self, number: int) -> list[FlowStep]:
        """Return the steps of one level."""
        return cast(list[FlowStep], list(self.steps[number * self.depth : (number + 1) * self.depth]))

    def encode(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return latents ``(N, latent_dim)`` of pixels in (0, 1) at the native size, and :math:`\log |\det|`."""
        inner = ALPHA + (1 - 2 * ALPHA) * pixels
        h = inner.logit()
        log_det = (math.log(1 - 2 * ALPHA) - logsigmoid(h) - logsigmoid(-h)).flatten(1).sum(1)
        left = []
        for level in range(len(self.shapes)):
            h = pixel_unshuffle(h, 2)
            for step in self.level(level):
                h, more = step(h)
                log_det = log_det + more
            if level < len(self.shapes) - 1:
                leaving, h = h.chunk(2, 1)
                left.append(leaving.flatten(1))
        return widened(torch.cat([*left, h.flatten(1)], 1)), log_det

    def decode(self, z: Tensor) -> Tensor:
        """Return the pixels ``(N, C, H, W)`` in about [0, 1] that :meth:`encode` maps to ``z``."""
        rest, h = z, None
        for level in reversed(range(len(self.shapes))):
            channels, height, breadth = self.shapes[level]
            entered = channels if h is None else channels // 2
            cut = rest.shape[1] - entered * height * breadth
            rest, part = rest[:, :cut], rest[:, cut:].unflatten(1, (entered, height, breadth))
            h = part if h is None else torch.cat([part, h], 1)
            for step in reversed(self.level(level)):
                h = step.inverse(h)
            h = pixel_shuffle(h, 2)
        assert h is not None
        pixels: Tensor = (h.sigmoid() - ALPHA) / (1 - 2 * ALPHA)
        return pixels

    def generate(self, z: Tensor) -> Tensor:
        """Return images of shape ``(N, C, H, W)`` in [0, 1]."""
        images = (256 * self.decode(z) - 0.5) / 255
        return fitted(images, self.size).clamp(0, 1)

    def latents(self, x: Tensor) -> Tensor:
        """Return the latents ``(N, latent_dim)`` that generate images ``x`` in [0, 1]."""
        return self.encode(_dequantised(fitted(x, self.native), 0.5))[0]

    def bits(self, x: Tensor, noise: Tensor | float = 0.5) -> Tensor:
        """Return the bits per dimension of images in [0, 1] with dequantisation ``noise``, shape ``(N,)``."""
        z, log_det = self.encode(_dequantised(fitted(x, self.native), noise))
        log_density = log_det - (z.square() + math.log(2 * math.pi)).sum(1) / 2
        return 8 - log_density / (self.latent_dim * math.log(2))

    def critic(self, x: Tensor) -> Tensor:
        """Return the negative bits per dimension, shape ``(N,)``."""
        return -self.bits(x)

    @torch.no_grad()
    def calibrate(self, x: Tensor, noise: Tensor) -> None:
        """Set scales and shifts of all steps by a batch of images."""
        h = (ALPHA + (1 - 2 * ALPHA) * _dequantised(fitted(x, self.native), noise)).logit()
        for level in range(len(self.shapes)):
            h = pixel_unshuffle(h, 2)
            for step in self.level(level):
                h = step.calibrate(h)
            h = h.chunk(2, 1)[1]


class Flow(ImagePrior):
    """A normalising flow on the attacker's public images."""

    card = PriorCard(
        name="flow",
        title="Normalising flow",
        modalities=("image",),
        year=2017,
        fidelity="reconstruction",
    )

    iterations: Count = 100_000
    """Steps."""
    levels: Count = 3
    """Most levels; each halves the size."""
    depth: Count = 32
    """Steps of the flow per level (Glow's K)."""
    width: Count = 512
    """Hidden channels of the couplings."""
    lr: Positive = 1e-3
    """Adam's learning rate."""

    def network(self, spec: InputSpec) -> FlowNetworks:
        """Return the untrained flow."""
        return FlowNetworks(spec.shape, self.levels, self.depth, self.width)

    def train(self, network: LatentPrior, data: PriorData, seed: int, device: torch.device) -> None:
        """Raise the likelihood of the public images."""
        assert isinstance(network, FlowNetworks)
        draws = generator(derive(seed, "flow"), device)
        adam = torch.optim.Adam(network.parameters(), lr=self.lr)

        def batch() -> tuple[Tensor, Tensor]:
            images = fitted(self.batch(data, draws), network.native)
            return images, torch.rand(images.shape, generator=draws, device=device)

        network.train()
        network.calibrate(*batch())
        for _ in data.checkpoints.steps(self.iterations, "prior flow", network=network, adam=adam, draws=draws):
            step_along(adam, network.bits(*batch()).mean(), network)


def _dequantised(x: Tensor, noise: Tensor | float) -> Tensor:
    """Return images in [0, 1] as pixels in (0, 1) that are spread over 256 levels."""
    return (255 * x + noise) / 256


def _up(size: int, multiple: int) -> int:
    """Return the next multiple."""
    return -(-size // multiple) * multiple
