"""GI-NAS's generators: an hourglass whose up-sampling and skip connections are searched.

The search space of Yu et al. (GI-NAS, IEEE TIFS 2025), as in the authors' code, which has it from NAS-DIP (Chen et al.,
ECCV 2020): an encoder that halves the size at every level, a decoder that doubles it again, between them any pattern
of skip connections from every encoder level to every decoder level, and one kind of up-sampling for the decoder and for
the skips that lead up. Skips share the steps that they have in common, and steps that no skip takes are not built.
Batch norm uses the batch's own statistics and remembers none. Deviations: fewer levels where the deepest features would
be too few to normalise; convolutions that a batch norm follows have no bias, which it takes away; sizes that cannot be
halved so often are cut out of the next one that can.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

#: Values per channel that a batch norm needs: what the authors' five levels leave of four images of 32x32 pixels.
NORMALISED = 4

OperationName = Literal["bilinear", "bicubic", "nearest", "shuffle"]

#: Kinds of convolution beside an up-sampling; ``split`` sums four groups of channels and convolves the sum.
ConvolutionName = Literal["conv", "transposed", "split", "separable", "depthwise", "none"]

ActivationName = Literal["none", "relu", "leaky"]


@dataclass(frozen=True)
class Upsampling:
    """How features are doubled in size: an operation without weights and a convolution, an activation after each.

    Attributes:
        operation: ``bilinear``, ``bicubic``, ``nearest`` or ``shuffle`` (channels to space).
        convolution: The convolution.
        kernel: Its size.
        activation: ``none``, ``relu`` or ``leaky``.
        first: Whether the convolution comes first.
    """

    operation: OperationName
    convolution: ConvolutionName
    kernel: int
    activation: ActivationName
    first: bool = False


def _upsamplings() -> tuple[Upsampling, ...]:
    convolutions: tuple[ConvolutionName, ...] = ("conv", "transposed", "split", "separable")
    resizes: tuple[OperationName, ...] = ("bilinear", "bicubic", "nearest")
    activations: tuple[ActivationName, ...] = ("none", "relu", "leaky")
    found = [Upsampling(resize, "none", 1, activation) for resize in resizes for activation in activations]
    for kernel, activation in itertools.product((1, 3, 5, 7), activations):
        found += [Upsampling(resize, "depthwise", kernel, activation) for resize in resizes]
        for convolution in convolutions:
            found += [Upsampling(resize, convolution, kernel, activation) for resize in resizes]
            found += [Upsampling("shuffle", convolution, kernel, activation, first) for first in (False, True)]
    return tuple(found)


#: Every kind that the authors' search meets and that fits together.
UPSAMPLINGS = _upsamplings()


@dataclass(frozen=True)
class Architecture:
    """One candidate of the search space.

    Attributes:
        upsampling: How features are doubled.
        skips: Of every decoder level, finest first, whether the features of each encoder level (0: the noise itself)
            are added to what it takes.
    """

    upsampling: Upsampling
    skips: tuple[tuple[bool, ...], ...]

    @classmethod
    def draw(cls, levels: int, draws: torch.Generator) -> Architecture:
        """Return a random candidate: any up-sampling, and every skip with probability 1/2."""
        kind = int(torch.randint(len(UPSAMPLINGS), (), generator=draws))
        skips = torch.randint(2, (levels, levels), generator=draws).bool()
        return cls(UPSAMPLINGS[kind], tuple(tuple(row) for row in skips.tolist()))


def depth(shape: tuple[int, ...], batch_size: int, levels: int) -> int:
    """Return how many of ``levels`` leave enough features to normalise."""
    return max(
        (
            level
            for level in range(1, levels + 1)
            if batch_size * math.prod(math.ceil(side / 2**level) for side in shape[1:]) >= NORMALISED
        ),
        default=1,
    )


def noise_shape(shape: tuple[int, ...], levels: int) -> tuple[int, ...]:
    """Return the shape of one image's noise: as many channels, sides that can be halved ``levels`` times."""
    channels, *sides = shape
    return (channels, *[math.ceil(side / 2**levels) * 2**levels for side in sides])


class Hourglass(nn.Module):
    """A generator of images from noise images.

    Args:
        shape: Image shape ``(C, H, W)``.
        architecture: The candidate.
        channels: Channels inside; a multiple of 16.
    """

    def __init__(self, shape: tuple[int, ...], architecture: Architecture, channels: int = 128) -> None:
        super().__init__()
        colours, *self.size = shape
        levels = len(architecture.skips)
        self.sources = [[source for source in range(levels) if row[source]] for row in architecture.skips]
        inputs = [colours, *[channels] * (levels - 1)]
        self.encode = nn.ModuleList(
            nn.Sequential(_convolution(before, channels, 3, 2), _convolution(channels, channels, 3))
            for before in inputs
        )
        self.lift = nn.ModuleList(_doubling(architecture.upsampling, channels) for _ in inputs)
        self.decode = nn.ModuleList(
            nn.Sequential(_norm(channels), *[_convolution(channels, channels, kernel) for kernel in (3, 3, 1)])
            for _ in inputs
        )
        self.skips = nn.ModuleDict()
        for level, sources in enumerate(self.sources):
            for source in sources:
                for name in _steps(source, level):
                    if name in self.skips:
                        continue
                    before = inputs[int(name.split("_")[1])]
                    if name.startswith("up"):
                        self.skips[name] = _doubling(architecture.upsampling, channels)
                    elif name.startswith("down"):
                        self.skips[name] = _convolution(before, channels, 3, 2)
                    else:
                        self.skips[name] = _convolution(before, channels, 1)
        self.image = nn.Conv2d(channels, colours, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Return images of shape ``(N, C, H, W)`` in [0, 1] from noise of :func:`noise_shape`."""
        encoded = [u]
        for block in self.encode:
            encoded.append(block(encoded[-1]))
        features = encoded[-1]
        for level in reversed(range(len(self.sources))):
            features = self.lift[level](features)
            for source in self.sources[level]:
                added = encoded[source]
                for name in _steps(source, level):
                    added = self.skips[name](added)
                features = features + added
            features = self.decode[level](features)
        height, breadth = self.size
        images: Tensor = self.image(features)[..., :height, :breadth].sigmoid()
        return images


def _steps(source: int, level: int) -> list[str]:
    """Return the names of the modules that carry encoder features of ``source`` to decoder ``level``."""
    if source == level:
        return [f"same_{level}"]
    if source < level:
        return [f"down_{at}" for at in range(source, level)]
    return [f"up_{at}" for at in range(source, level, -1)]


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, track_running_stats=False)


def _convolution(before: int, after: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, bias=False), _norm(after), nn.LeakyReLU(0.2)
    )


class _SumOfGroups(nn.Module):
    """Sums four groups of channels."""

    def forward(self, x: Tensor) -> Tensor:
        """Return a quarter of the channels of ``x``, shape ``(N, C, H, W)``."""
        total: Tensor = x.unflatten(1, (4, -1)).sum(1)
        return total


def _doubling(kind: Upsampling, channels: int) -> nn.Sequential:
    """Return the module that doubles the size of features and keep their channels."""
    activation = {"none": nn.Identity(), "relu": nn.ReLU(), "leaky": nn.LeakyReLU(0.2)}[kind.activation]
    if kind.operation == "shuffle":
        operation: nn.Module = nn.PixelShuffle(2)
        before, after = (channels, 4 * channels) if kind.first else (channels // 4, channels)
    else:
        operation = nn.Upsample(scale_factor=2, mode=kind.operation)
        before, after = channels, channels
    convolution: list[nn.Module] = []
    around = kind.kernel // 2
    match kind.convolution:
        case "conv":
            convolution = [nn.Conv2d(before, after, kind.kernel, 1, around, bias=False)]
        case "transposed":
            convolution = [nn.ConvTranspose2d(before, after, kind.kernel, 1, around)]
        case "split":
            convolution = [_SumOfGroups(), nn.Conv2d(before // 4, after, kind.kernel, 1, around, bias=False)]
        case "separable":
            convolution = [
                nn.Conv2d(before, before, kind.kernel, 1, around, groups=before, bias=False),
                nn.Conv2d(before, after, 1, bias=False),
            ]
        case "depthwise":
            convolution = [nn.Conv2d(before, after, kind.kernel, 1, around, groups=after, bias=False)]
    convolved = [*convolution, activation] if convolution else []
    doubled = [operation, activation]
    return nn.Sequential(*(convolved + doubled if kind.first else doubled + convolved))
