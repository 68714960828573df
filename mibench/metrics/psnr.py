r"""Peak signal-to-noise ratio between each reconstructed image and the private image it was matched with.

.. math:: \mathrm{PSNR}(\hat x, x) = 10 \log_{10} (1 / \mathrm{MSE}(\hat x, x))

in decibels for images in [0, 1]: the mean over images of decibels, not the decibels of a mean error. No small
constant is added to the error (some tools do, which puts a ceiling of 60 dB on it). An exact image has an
infinite ratio; every value is capped at ``cap``, and the share of images whose error is zero stands beside as
the variant ``exact``. Where part of the image was known, the variant ``hole`` is the ratio over the hidden pixels
alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric, regions
from mibench.metrics.mse import squared_errors
from mibench.options import Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.completion import CompletionTruth
from mibench.tasks.instance import InstanceTruth


class Psnr(Metric[InstanceTruth]):
    """Peak signal-to-noise ratio per image."""

    card = MetricCard(
        name="psnr",
        title="Peak signal-to-noise ratio",
        modalities=("image",),
        tasks=("instance", "completion"),
        higher_is_leakier=True,
    )

    cap: Positive = 100.0
    """Largest value in decibels, given to exact images."""

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return decibels per image and per hole, and whether each image is exact (variant ``exact``)."""
        measured = []
        for variant, x, y in regions(result, truth, CompletionTruth.inside):
            decibels = (-10 * squared_errors(x, y).log10()).clamp_max(self.cap)
            measured.append(Measurement(values=decibels, groups=truth.target, variant=variant, unit="dB"))
        exact = (squared_errors(result.values, truth.x) == 0) & ~result.missing
        return [*measured, Measurement(values=exact.double(), groups=truth.target, variant="exact", share=True)]
