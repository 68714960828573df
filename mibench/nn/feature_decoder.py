"""Networks from the features of a cut network back to its inputs.

Features of any shape are standardised by what the decoder is trained on, brought to a small map, worked on and doubled
in size up to the image's. Three bodies, after those of ResSFL (Li et al., CVPR 2022):

* ``custom``: a convolution, then transposed convolutions that halve the channels;
* ``conv_norm``: ``blocks`` convolutions with batch norm of ``channels`` channels each, then transposed convolutions;
* ``res_norm``: the same of residual blocks.

Vectors and tokens, which have no place in the image, go through two linear layers to a map first. The end is a sigmoid.
Sizes that doubling does not meet are cut out of the next one.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

Body = Literal["custom", "conv_norm", "res_norm"]

#: Pixels per side, at most, of the map that vectors are brought to.
SMALL = 8


class FeatureDecoder(nn.Module):
    """A decoder of features.

    Args:
        features: Shape of one example's features.
        image: Shape ``(C, H, W)`` of one image.
        body: ``custom``, ``conv_norm`` or ``res_norm``.
        blocks: Blocks before the doublings; ``custom`` has one convolution.
        channels: Channels of a block.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        features: tuple[int, ...],
        image: tuple[int, ...],
        body: Body = "res_norm",
        blocks: int = 4,
        channels: int = 64,
    ) -> None:
        super().__init__()
        count, height, width = image
        self.size = height, width
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))
        small = features[1:] if len(features) == 3 else _small(height, width)
        entries = math.prod(features)
        placed = nn.Sequential(
            nn.Flatten(),
            nn.Linear(entries, 4 * channels),
            nn.ReLU(),
            nn.Linear(4 * channels, channels * math.prod(small)),
            nn.ReLU(),
            nn.Unflatten(1, (channels, *small)),
        )
        self.place = nn.Identity() if len(features) == 3 else placed
        inputs = features[0] if len(features) == 3 else channels
        made = [_block(body, inputs if not number else channels, channels) for number in range(blocks)]
        self.blocks = nn.Sequential(*(made[:1] if body == "custom" else made))
        doublings = max(0, math.ceil(math.log2(max(height / small[0], width / small[1]))))
        widths = [max(8, channels >> number) for number in range(doublings + 1)]
        widths = widths if body == "custom" else [channels] * (doublings + 1)
        self.grow = nn.Sequential(*(_doubled(*widths[number : number + 2]) for number in range(doublings)))
        self.image = nn.Conv2d(widths[-1], count, 3, padding=1)

    def fit(self, features: Tensor) -> None:
        """Take mean and deviation of every entry of features ``(N, ...)``; one that hardly varies is not blown up."""
        mean, scale = standardisation(features)
        self.mean.copy_(mean)
        self.scale.copy_(scale)

    def forward(self, features: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] of features ``(N, ...)``."""
        h = self.blocks(self.place((features - self.mean) / self.scale))
        images: Tensor = self.image(self.grow(h)).sigmoid()
        height, width = self.size
        return images[..., :height, :width]


def standardisation(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of every entry of features ``(N, ...)``, a deviation of at least a tenth of all's."""
    deviation = features.std(0, correction=0)
    floor = 0.1 * (deviation.square().mean() + 1e-24).sqrt() + 1e-12
    return features.mean(0), deviation.clamp_min(floor)


def dissimilarity(made: Tensor, truth: Tensor) -> Tensor:
    """Return 1 - SSIM, the mean over images ``(N, C, H, W)`` in [0, 1]; the window is the largest odd one up to 11."""
    import piq

    side = min(truth.shape[-2:])
    similar: Tensor = piq.ssim(made, truth, kernel_size=min(11, side - 1 + side % 2), downsample=False)
    return 1 - similar


def _small(height: int, width: int) -> tuple[int, int]:
    """Return the size of the map that doublings bring to an image's, not above ``SMALL``."""
    halvings = max(1, math.ceil(math.log2(max(height, width) / SMALL)))
    return math.ceil(height / 2**halvings), math.ceil(width / 2**halvings)


def _block(body: Body, before: int, after: int) -> nn.Module:
    if body == "custom":
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1), nn.ReLU())
    if body == "conv_norm" or before != after:
        return nn.Sequential(nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
    return _Residual(after)


def _doubled(before: int, after: int) -> nn.Module:
    return nn.Sequential(nn.ConvTranspose2d(before, after, 4, 2, 1), nn.ReLU())


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(2):
            layers += [nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        self.body = nn.Sequential(*layers[:-1])

    def forward(self, h: Tensor) -> Tensor:
        return nn.functional.relu(h + self.body(h))
