"""The fourteen image operations of AutoAugment, each at ten levels (Cubuk et al., AutoAugment, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as images

#: The highest level; level 0 leaves an image as it is where the operation has levels at all.
HIGHEST = 9


def _affine(
    x: Tensor, angle: float = 0.0, right: float = 0.0, down: float = 0.0, shear: tuple[float, float] = (0, 0)
) -> Tensor:
    """Return images turned by degrees, moved by shares of their sides, sheared by slopes; bared pixels are black."""
    degrees = [float(torch.tensor(slope).atan().rad2deg()) for slope in shear]
    moved = [round(right * x.shape[-1]), round(down * x.shape[-2])]
    result: Tensor = images.affine(x, angle, moved, 1.0, degrees, interpolation=InterpolationMode.BILINEAR)
    return result


def _posterised(x: Tensor, share: float) -> Tensor:
    step = float(2 ** round(4 * share))
    return (x * 255 / step).floor() * step / 255


def _equalised(x: Tensor, share: float) -> Tensor:
    result: Tensor = images.equalize((x * 255).round().to(torch.uint8)) / 255
    return result


#: The operations by name; each takes images ``(N, C, H, W)`` in [0, 1] and its level as a share of the highest.
OPERATIONS: Mapping[str, Callable[[Tensor, float], Tensor]] = {
    "shear_x": lambda x, share: _affine(x, shear=(0.3 * share, 0.0)),
    "shear_y": lambda x, share: _affine(x, shear=(0.0, 0.3 * share)),
    "translate_x": lambda x, share: _affine(x, right=150 / 331 * share),
    "translate_y": lambda x, share: _affine(x, down=150 / 331 * share),
    "rotate": lambda x, share: _affine(x, angle=30 * share),
    "autocontrast": lambda x, share: images.autocontrast(x),
    "equalize": _equalised,
    "invert": lambda x, share: 1 - x,
    "posterize": _posterised,
    "solarize": lambda x, share: torch.where(x >= 1 - share, 1 - x, x),
    "contrast": lambda x, share: images.adjust_contrast(x, 1 + 0.9 * share),
    "brightness": lambda x, share: images.adjust_brightness(x, 1 + 0.9 * share),
    "sharpness": lambda x, share: images.adjust_sharpness(x, 1 + 0.9 * share),
    "color": lambda x, share: images.adjust_saturation(x, 1 + 0.9 * share),
}

#: Those that know no levels: they are what they are at any level.
WITHOUT_LEVEL = ("autocontrast", "equalize", "invert")


def operate(x: Tensor, name: str, level: int) -> Tensor:
    """Return images ``(N, C, H, W)`` in [0, 1] after one operation at a level from 0 to 9; 0 changes nothing."""
    if level == 0 and name not in WITHOUT_LEVEL:
        return x
    return OPERATIONS[name](x, level / HIGHEST).clamp(0, 1)
