r"""AVD: absolute variation distance (Papadopoulos, Satsangi, Eloul and Pistoia, ECIR 2024).

How unlike two images are in where they vary and how much, whatever their brightness. With first differences
:math:`d` of neighbouring pixels along width and height, second differences :math:`dd`, and all channels alike,

.. math::
   \mathrm{AVD} = \sqrt{\operatorname{mean}\big((D_1 - \hat D_1)^2\big)
                        + \tfrac12 \operatorname{mean}\big((D_2 - \hat D_2)^2\big)}, \quad
   D_1 = |d_x + d_y|,\; D_2 = |dd_x + dd_y|

as in the authors' code (variant ``code``), which first cuts both images to 8 bits (values times 255, truncated) and
leaves out the first row and column of :math:`D_1`, and two of each of :math:`D_2`, where one of the differences is not
there. A slope that rises to the right as fast as it falls downwards has :math:`D_1 = 0`. The formula of the paper,

.. math:: \lVert\, |\nabla \hat x| - |\nabla x|\, \rVert + \lVert\, |\nabla^2 \hat x| - |\nabla^2 x|\, \rVert

has no such blind slope and no 8 bits (variant ``paper``). The paper's norms are not spelled out; read here are the
length of the gradient, the Laplacian and the root mean square over pixels and channels, with differences as above.

From 0, which two images with the same differences up to sign have: constant images, an image and a lighter copy, an
image and its negative. So a value is never to be read alone; ``mse`` or ``ssim`` sees what it does not. The code pairs
every reconstruction with the nearest image of the batch; here they come paired, one to one. Where part of the image was
known, the box around what was hidden is compared too (``hole_code``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric, compared
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


class Avd(Metric[InstanceTruth]):
    """Absolute variation distance per image; 0 for equal images."""

    card = MetricCard(
        name="avd",
        title="Absolute variation distance",
        modalities=("image",),
        year=2024,
        code="https://github.com/jpmorganchase/fl-eval-kit",
        fidelity="official",
        tasks=("instance", "completion"),
        higher_is_leakier=False,
        default=False,
    )

    variant: Literal["code", "paper"] = "code"
    """``code``, what the authors' code computes, or ``paper``, the formula they print."""

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one distance per image, shape ``(N,)``, and one per box around a hole."""
        distance = of_code if self.variant == "code" else of_paper
        return compared(result, truth, distance, lambda _: self.variant)


def of_code(x: Tensor, y: Tensor) -> Tensor:
    """Return the code's distance of every pair of images ``(N, C, H, W)`` in [0, 1], shape ``(N,)``."""
    (first, second), (other_first, other_second) = (
        ((dx + dy).abs(), (ddx + ddy).abs()) for dx, dy, ddx, ddy in map(differences, (_in_8_bits(x), _in_8_bits(y)))
    )
    return (_mean_square(first - other_first) + _mean_square(second - other_second) / 2).sqrt()


def of_paper(x: Tensor, y: Tensor) -> Tensor:
    """Return the paper's distance of every pair of images ``(N, C, H, W)`` in [0, 1], shape ``(N,)``."""
    (first, second), (other_first, other_second) = (
        (dx.hypot(dy), (ddx + ddy).abs()) for dx, dy, ddx, ddy in map(differences, (x.double(), y.double()))
    )
    return _mean_square(first - other_first).sqrt() + _mean_square(second - other_second).sqrt()


def differences(x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return first differences along width and height and second ones, each pair where both are defined.

    Args:
        x: Images of shape ``(N, C, H, W)``.

    Returns:
        Two tensors of shape ``(N, C, H - 1, W - 1)`` and two of shape ``(N, C, H - 2, W - 2)``.
    """
    along_width, along_height = x.diff(dim=-1), x.diff(dim=-2)
    second_along_width, second_along_height = along_width.diff(dim=-1), along_height.diff(dim=-2)
    return (
        along_width[..., 1:, :],
        along_height[..., 1:],
        second_along_width[..., 2:, :],
        second_along_height[..., 2:],
    )


def _in_8_bits(x: Tensor) -> Tensor:
    """Return images cut down to multiples of 1/255; those stay what they are."""
    return (255 * x).trunc().double() / 255


def _mean_square(x: Tensor) -> Tensor:
    return x.square().flatten(1).mean(1)
