r"""FSIM: feature similarity (Zhang, Zhang, Mou and Zhang, FSIM: A Feature Similarity Index, IEEE TIP 2011).

What an eye takes for a feature, whatever its contrast, is where the waves an image is made of are in phase. With this
phase congruency :math:`PC` (log-Gabor filters of 4 scales and 4 orientations) and the Scharr gradient magnitude
:math:`G`,

.. math::
   \mathrm{FSIM} = \frac{\sum_p S_{PC}\, S_G\, PC_m}{\sum_p PC_m}, \quad
   S_{PC} = \frac{2 PC_1 PC_2 + T_1}{PC_1^2 + PC_2^2 + T_1}, \quad
   S_G = \frac{2 G_1 G_2 + T_2}{G_1^2 + G_2^2 + T_2}, \quad
   PC_m = \max(PC_1, PC_2)

on luminance from 0 to 255, :math:`T_1 = 0.85`, :math:`T_2 = 160`; large images are first averaged down to about 256
pixels. Computed with piq, which follows the authors' MATLAB code. Grey images get this (variant ``luminance``), colour
images the authors' FSIMc, with the chromatic similarity to the power of 0.03 as a further factor (``chromatic``). Where
part of the image was known, the box around what was hidden is compared too (``hole_luminance``).

The largest filter is 48 pixels long: under 32 pixels a side the value means nothing, and the row is skipped. The scale
is used in its upper half alone (two images of noise have 0.77), so a value is to be read beside its control.
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

SMALLEST_SIDE = 32


class Fsim(Metric[InstanceTruth]):
    """Feature similarity per image, above 0; 1 for equal images."""

    card = MetricCard(
        name="fsim",
        title="Feature similarity",
        modalities=("image",),
        year=2011,
        tasks=("instance", "completion"),
        higher_is_leakier=True,
        default=False,
    )

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one value per image, shape ``(N,)``, and one per box around a hole."""
        return compared(result, truth, feature_similarities, form_of, f"piq:{version('piq')}", too_small)


def form_of(images: Tensor) -> str:
    """Return which form images get: ``chromatic`` in colour, else ``luminance``."""
    return "chromatic" if images.shape[1] == 3 else "luminance"


def too_small(images: Tensor) -> str:
    """Return why images have no FSIM, where they are too small."""
    side = min(images.shape[-2:])
    return f"FSIM needs {SMALLEST_SIDE} pixels a side, and there are {side}." if side < SMALLEST_SIDE else ""


def feature_similarities(x: Tensor, y: Tensor) -> Tensor:
    """Return FSIM, of colour images FSIMc, of every pair ``(N, C, H, W)`` in [0, 1], shape ``(N,)``."""
    import piq

    pairs = zip(x.double().split(64), y.double().split(64), strict=True)
    return torch.cat([piq.fsim(a, b, chromatic=y.shape[1] == 3, reduction="none") for a, b in pairs])
