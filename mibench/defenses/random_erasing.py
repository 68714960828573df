r"""Random erasing, MIDRE (Tran et al., Random Erasing vs. Model Inversion, TMLR 2025).

The target never sees a whole object. In every training image, each time it is used, a rectangle is painted over: with
:math:`a \sim U(a_l, a_h)` of the area :math:`H W` and aspect ratio :math:`r`, log-uniform,

.. math:: h = \sqrt{a H W r}, \qquad w = \sqrt{a H W / r},

at a uniform position inside the image. Two properties matter, says the paper: that a part is always gone
(``probability`` 1), and that it is another one each time. The erasing belongs to the loss: drawn afresh for every batch
of a central training, and for every step of a federated client, which so sends the gradient of an erased image. Test
and served images are left whole.

What it does not protect from: what is not erased. A client's message gives away the rest of its picture, and its next
messages other rests; in a central model the pieces of many epochs add up to the whole class. It hides no gradient and
needs no attacker who knows of it, but one who does can erase his candidates too (expectation over the erasing).

Official code: https://github.com/ngoc-nguyen-0/MIDRE_TMLR. As in its configuration (ResNet-18, FaceScrub) rectangles
are squares of 0.1 to 0.8 of the area, filled with ImageNet's channel means; ``aspect=3.3`` is torchvision's own range.
Deviations: the fill is set in [0, 1], where the code sets the same numbers after its normalisation; an aspect with
which a large rectangle would stick out is drawn among those that fit, where torchvision draws area and aspect ten
times and then gives up; sides are whole pixels of at least one; the other augmentations of the recipe are left out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from mibench.defenses.base import Batch, Defense, DefenseCard, cross_entropy
from mibench.errors import UserError
from mibench.nn.rectangles import rectangles
from mibench.options import Fraction, Range

#: ImageNet's channel means, in [0, 1]; a grey image takes their mean.
MEANS = (0.485, 0.456, 0.406)


class RandomErasing(Defense):
    """Training on images of which a random rectangle is gone."""

    card = DefenseCard(
        name="random_erasing",
        title="Random erasing (MIDRE)",
        modalities=("image",),
        year=2025,
        code="https://github.com/ngoc-nguyen-0/MIDRE_TMLR",
        fidelity="official",
        hooks=("training",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="area_high",
        stronger="higher",
        levels=(0.3, 0.5, 0.8),
    )

    probability: Fraction = 1.0
    """Share of the images that are erased; 0 leaves training as it is."""
    area_low: Fraction = 0.1
    """Least erased share of the area (a_l)."""
    area_high: Fraction = 0.8
    """Largest erased share of the area (a_h), at least ``area_low``."""
    aspect: Annotated[float, Range("of at least 1", lambda value: 1 <= value < float("inf"))] = 1.0
    """Largest ratio of a rectangle's sides, at least 1; 1 erases squares."""
    fill: Literal["mean", "noise"] = "mean"
    """What is painted: ImageNet's ``mean``, or uniform ``noise``."""

    def __post_init__(self) -> None:
        """Check the options together."""
        super().__post_init__()
        if self.area_low > self.area_high:
            raise UserError(
                f"Expected defense.area_low to be at most defense.area_high={self.area_high}, but got {self.area_low}."
            )

    def loss(self, batch: Batch) -> Tensor:
        """Return the cross-entropy of the erased images."""
        if not self.probability or not self.area_high:
            return cross_entropy(batch)
        return cross_entropy(replace(batch, x=self.erased(batch.x)))

    def erased(self, x: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` in [0, 1] with a fresh rectangle of each painted over."""
        count, channels = x.shape[:2]
        if self.fill == "noise":
            paint = torch.rand_like(x)
        else:
            means = MEANS if channels == len(MEANS) else (sum(MEANS) / len(MEANS),) * channels
            paint = torch.tensor(means, device=x.device, dtype=x.dtype).reshape(1, -1, 1, 1)
        gone = self.holes(count, x.shape[2], x.shape[3], x.device)
        if self.probability < 1:
            gone &= (torch.rand(count, device=x.device) < self.probability).reshape(-1, 1, 1, 1)
        return torch.where(gone, paint, x)

    def holes(self, count: int, height: int, width: int, device: torch.device) -> Tensor:
        """Return where ``count`` images are erased, shape ``(count, 1, height, width)``, from torch's generator."""
        draw = torch.rand(4, count, device=device)
        area = self.area_low + (self.area_high - self.area_low) * draw[0]
        least, most = math.log(height / width) + area.log(), math.log(height / width) - area.log()  # that still fit
        bound = math.log(self.aspect)
        lowest, highest = least.clamp_min(-bound).minimum(most), most.clamp_max(bound).maximum(least)
        ratio = (lowest + (highest - lowest) * draw[1]).exp()
        heights = (area * height * width * ratio).sqrt().round().clamp(1, height)
        widths = (area * height * width / ratio).sqrt().round().clamp(1, width)
        return rectangles(heights, widths, draw[2:], (height, width))
