r"""Training and serving on perceptually hashed image parts (Prakash et al., GLOBECOM 2020).

Every input is replaced by an image of hashes before the model sees it, in training and in serving. The image is cut
into :math:`g \times g` patches; each one is made grey and 32 x 32, and its pHash is taken: the 64 coefficients of the
two-dimensional DCT with frequencies 1 to 8 either way (no DC), bit by bit whether above their median. The bits are an
8 x 8 tile, and the tiles stand where the patches stood. What is inverted is a hash; metrics compare with the photo.

No official code exists and the abstract names neither hash nor grid: pHash and the grid are inferred. With ``share``
below 1 only the patches nearest to the middle (the face) are hashed, and the ``rest`` stays in the clear or is dropped.

What it does not protect: a small patch with 64 bits is nearly invertible by a decoder trained on public pairs of image
and hash (8 x 8 pixels have no more than 64 numbers to hide), and what is not hashed is in the clear. An attacker knows
the hash. The bits have no gradient, which would only hide from a white-box attack what a better one finds: backwards
they are therefore a sigmoid of the coefficients (the straight-through estimate of an adaptive attacker, Athalye et al.,
2018), so that every attack on gradients is the one that knows of the defense.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mibench.defenses.base import Defense, DefenseCard
from mibench.errors import UserError
from mibench.options import Count, Fraction

#: Bits of a tile's side.
SIDE = 8

#: Pixels of a patch's side before its transform.
RESIZED = 32


class PerceptualHash(Defense):
    """The model sees hashes of patches."""

    card = DefenseCard(
        name="perceptual_hash",
        title="Perceptual hashing",
        modalities=("image",),
        year=2020,
        fidelity="reconstruction",
        hooks=("input",),
        affects=("white_box", "scores", "labels", "explanations", "gradients", "features"),
        strength="share",
        stronger="higher",
        levels=(0.25, 0.5, 1.0),
    )

    grid: Count | None = None
    """Patches of a side (g); None for as many as have tiles of one pixel per bit (the side over 8)."""
    share: Fraction = 1.0
    """Share of the patches that are hashed, those in the middle first; 0 hashes none."""
    rest: Literal["clear", "dropped"] = "clear"
    """What becomes of the others: ``clear`` or ``dropped`` (black)."""

    def input(self, x: Tensor) -> Tensor:
        """Return images ``(N, C, H, W)`` whose chosen patches are their hashes, black and white.

        Raises:
            UserError: If the image has fewer pixels than the hashes have bits.
        """
        if not self.share:
            return x
        height, width = x.shape[-2:]
        grid = self.grid or max(1, min(height, width) // SIDE)
        if grid * SIDE > min(height, width):
            raise UserError(
                f"defense.grid={grid} makes hashes of {grid * SIDE} x {grid * SIDE} bits, but images have {height} x "
                f"{width} pixels; lower it, or raise dataset.size."
            )
        hashed = interpolate(tiles(x, grid), (height, width), mode="nearest").expand_as(x)
        if self.share == 1:
            return hashed
        mask = middle(grid, max(1, round(self.share * grid * grid))).to(x)
        mask = interpolate(mask[None, None], (height, width), mode="nearest")
        return hashed * mask + x * (1 - mask) * (self.rest == "clear")


def tiles(x: Tensor, grid: int) -> Tensor:
    """Return the hashes of all patches as images of bits ``(N, 1, 8 grid, 8 grid)`` for images ``(N, C, H, W)``."""
    side = grid * RESIZED
    grey = interpolate(x.mean(1, keepdim=True), (side, side), mode="bilinear", align_corners=False)
    patches = grey.unflatten(3, (grid, RESIZED)).unflatten(2, (grid, RESIZED)).transpose(3, 4)
    basis = cosines().to(x)
    coefficients = (basis @ patches @ basis.T).flatten(-2)
    above = coefficients - coefficients.detach().median(-1, keepdim=True).values
    width = above.detach().abs().mean(-1, keepdim=True).clamp_min(1e-6)
    soft = torch.sigmoid(above / width)
    bits = (above.detach() > 0).to(x) + (soft - soft.detach())
    tile = bits.unflatten(-1, (SIDE, SIDE)).transpose(3, 4)
    image: Tensor = tile.flatten(4, 5).flatten(2, 3)
    return image


def cosines() -> Tensor:
    """Return the rows of frequencies 1 to 8 of the orthonormal DCT-II of 32 values, shape ``(8, 32)``."""
    frequency, place = torch.arange(1, SIDE + 1).double(), torch.arange(RESIZED).double()
    return math.sqrt(2 / RESIZED) * torch.cos(math.pi * frequency[:, None] * (2 * place + 1) / (2 * RESIZED))


def middle(grid: int, count: int) -> Tensor:
    """Return a mask ``(grid, grid)`` that is 1 on the ``count`` patches nearest to the middle."""
    offset = (torch.arange(grid) - (grid - 1) / 2).square()
    order = (offset[:, None] + offset).flatten().argsort(stable=True)
    mask = torch.zeros(grid * grid)
    mask[order[:count]] = 1
    return mask.reshape(grid, grid)
