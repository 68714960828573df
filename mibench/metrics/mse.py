r"""Mean squared error between each reconstructed image and the private image it was matched with.

.. math:: \mathrm{MSE}(\hat x, x) = \frac{1}{CHW} \sum (\hat x - x)^2

on images in [0, 1], over all channels alike; per image first, so that one exact image is not averaged away. A
missing image arrives as plain mid-grey and is measured as such: the best that can be said without an answer. Where
part of the image was known, the variant ``hole`` is the mean over the hidden pixels alone.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric, regions
from mibench.tasks.base import Reconstruction
from mibench.tasks.completion import CompletionTruth
from mibench.tasks.instance import InstanceTruth


class Mse(Metric[InstanceTruth]):
    """Mean squared error per image, from 0 (exact) to 1."""

    card = MetricCard(
        name="mse",
        title="Mean squared error",
        modalities=("image",),
        tasks=("instance", "completion"),
        higher_is_leakier=False,
    )

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one error per image, shape ``(N,)``, and one per hole."""
        return [
            Measurement(values=squared_errors(x, y), groups=truth.target, variant=variant)
            for variant, x, y in regions(result, truth, CompletionTruth.inside)
        ]


def squared_errors(x: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error of every pair of images ``(N, ...)``, shape ``(N,)``, in double precision."""
    return (x.double() - y.double()).square().flatten(1).mean(1)
