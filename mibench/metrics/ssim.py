r"""Structural similarity (Wang, Bovik, Sheikh and Simoncelli, Image Quality Assessment, IEEE TIP 2004).

In a Gaussian window (11 pixels, sigma 1.5) around every pixel whose window lies inside the image,

.. math::
   \frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)},
   \quad c_1 = 0.01^2,\; c_2 = 0.03^2,

for images in [0, 1], averaged over pixels, then over channels. Computed with piq, without its down-sampling of
large images, which equals scikit-image with Gaussian weights and the biased covariance. Implementations
that pad the image or use a uniform window differ in the third digit. Images with a side under 11 pixels get the
largest odd window that fits; the variant says which (``window11``, ``window7``). Where part of the image was known, the
box around what was hidden is compared too (``hole_window11``).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric, compared
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth

WINDOW = 11


class Ssim(Metric[InstanceTruth]):
    """Structural similarity per image; 1 for equal images."""

    card = MetricCard(
        name="ssim",
        title="Structural similarity",
        modalities=("image",),
        year=2004,
        tasks=("instance", "completion"),
        higher_is_leakier=True,
    )

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one value per image, shape ``(N,)``, and one per box around a hole."""
        return compared(result, truth, similarities, lambda true: f"window{window_of(true)}", f"piq:{version('piq')}")


def similarities(x: Tensor, y: Tensor) -> Tensor:
    """Return the structural similarity of every pair of images ``(N, C, H, W)``, shape ``(N,)``, in doubles."""
    import piq

    pairs, window = zip(x.double().split(256), y.double().split(256), strict=True), window_of(y)
    return torch.cat([piq.ssim(a, b, kernel_size=window, downsample=False, reduction="none") for a, b in pairs])


def window_of(images: Tensor) -> int:
    """Return the side of the window: the largest odd one that fits, at most ``WINDOW``."""
    smallest = min(images.shape[-2:])
    return min(WINDOW, smallest - 1 + smallest % 2)
