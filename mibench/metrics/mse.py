r"""Mean squared error between each reconstructed image and the private image it was matched with.

.. math:: \mathrm{MSE}(\hat x, x) = \frac{1}{CHW} \sum (\hat x - x)^2

on images in [0, 1], over all channels alike; per image first, so that one exact image is not averaged away. A
missing image arrives as plain mid-grey and is measured as such: the best that can be said without an answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


class Mse(Metric[InstanceTruth]):
    """Mean squared error per image, from 0 (exact) to 1."""

    card = MetricCard(
        name="mse",
        title="Mean squared error",
        modalities=("image",),
        tasks=("instance",),
        higher_is_leakier=False,
    )

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Returns one error per image, shape ``(N,)``."""
        return [Measurement(values=squared_errors(result.values, truth.x), groups=truth.target)]


def squared_errors(x: Tensor, y: Tensor) -> Tensor:
    """Returns the mean squared error of every pair of images ``(N, C, H, W)``, shape ``(N,)``, in double precision."""
    return (x.double() - y.double()).square().flatten(1).mean(1)
