"""Differentiable random views of images: crop and resize, mirror, rotate, jitter; every sample its own draw."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Views:
    """A pipeline of random transforms that keeps the size of the images.

    Attributes:
        scale: Share of the area that a crop keeps, drawn uniformly between both; ``(1, 1)`` does not crop.
        ratio: Width over height of the crop, drawn log-uniformly between both.
        mirror: Probability of a horizontal mirroring.
        rotation: Most degrees of rotation, either way.
        brightness: Most relative change of brightness.
        contrast: Most relative change of contrast.
    """

    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (1.0, 1.0)
    mirror: float = 0.0
    rotation: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __call__(self, images: Tensor, draws: torch.Generator) -> Tensor:
        """Return one view of each image ``(N, C, H, W)``, differentiable in it; jitter keeps values in [0, 1].

        Args:
            images: Images in [0, 1].
            draws: Random generator on the images' device.
        """
        if self._moves:
            grid = functional.affine_grid(self._transforms(len(images), draws), list(images.shape), align_corners=False)
            images = functional.grid_sample(images, grid.to(images), padding_mode="reflection", align_corners=False)
        if self.brightness:
            images = (images * self._factors(len(images), self.brightness, draws)).clamp(0, 1)
        if self.contrast:
            middle = images.mean((1, 2, 3), keepdim=True)
            images = (middle + (images - middle) * self._factors(len(images), self.contrast, draws)).clamp(0, 1)
        return images

    @property
    def _moves(self) -> bool:
        return bool((self.scale, self.ratio) != ((1, 1), (1, 1)) or self.mirror or self.rotation)

    def _transforms(self, n: int, draws: torch.Generator) -> Tensor:
        """Return affine maps ``(n, 2, 3)`` from output to input coordinates in [-1, 1]."""
        area = _between(self.scale, n, draws)
        ratio = _between((math.log(self.ratio[0]), math.log(self.ratio[1])), n, draws).exp()
        width, height = (area * ratio).sqrt().clamp_max(1), (area / ratio).sqrt().clamp_max(1)
        left, top = _between((-1, 1), n, draws) * (1 - width), _between((-1, 1), n, draws) * (1 - height)
        flip = torch.where(_between((0, 1), n, draws) < self.mirror, -1.0, 1.0)
        angle = _between((-self.rotation, self.rotation), n, draws) * (math.pi / 180)
        rows = [
            torch.stack([flip * width * angle.cos(), -height * angle.sin(), left], 1),
            torch.stack([flip * width * angle.sin(), height * angle.cos(), top], 1),
        ]
        return torch.stack(rows, 1)

    @staticmethod
    def _factors(n: int, most: float, draws: torch.Generator) -> Tensor:
        return _between((1 - most, 1 + most), n, draws).reshape(-1, 1, 1, 1)


def gentle(mirrored: bool) -> Views:
    """Return the views under which PLG-MI asks the target (Yuan et al., AAAI 2023, the authors' ``reconstruct.py``).

    Args:
        mirrored: Whether half of them are mirrored, as the authors do for faces.
    """
    return Views(scale=(0.8, 1.0), mirror=0.5 * mirrored, rotation=5.0, brightness=0.2, contrast=0.2)


def _between(bounds: Sequence[float], n: int, draws: torch.Generator) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(n, generator=draws, device=draws.device)
