r"""Member gap: is a reconstruction nearer to the images a victim was trained on than to others of the same person?

.. math:: g(\hat x) = \mathbb{E}\min_{x \in S} \lVert f(\hat x) - f(x) \rVert^2
          - \mathbb{E}\min_{x \in S'} \lVert f(\hat x) - f(x) \rVert^2

with penultimate features :math:`f` of an evaluation model, squared distances as in
:mod:`mibench.metrics.knn_distance`, and :math:`S`, :math:`S'` subsets of equal size of the private training and test
images of the class. The nearest of many is nearer than the nearest of few, whatever the images, so both sides are
given as many images as the scarcer one has: the expectation over all subsets of that size, which has a closed form.
About 0 is a learned likeness, below 0 a memorised image. The variant ``relative`` divides the difference by the sum of
both, from -1 to 1, so that a poor reconstruction far from every image weighs no more than a good one.

The yardstick is 0 and not the control: results of a control victim show other people and lie far from both sides, so
their gap is large of either sign, and a lift over it would tell of likeness and not of memory. There is therefore no
direction; an interval below 0 is the evidence. The evaluation model was trained on the same training images, so its
features may favour them a little (fresh images: -0.07 of their distance on digits).
With few test images a copy of one of
many training images lies in few subsets, and the gap is small but still negative on average. A test image that is
also a training image is left out. A missing sample arrives as a mid-grey image and is measured as such.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.model import Classifier
from mibench.nn.features import penultimate
from mibench.nn.neighbourhoods import distances
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class MemberGap(Metric[ClassTruth]):
    """Squared feature distance to the nearest training image less that to the nearest held-out one, per evaluator."""

    card = MetricCard(
        name="member_gap",
        title="Member gap",
        modalities=("image", "audio"),
        tasks=("class",),
        higher_is_leakier=None,
    )

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return one gap per sample, shape ``(N,)``, plain and relative, for each evaluation model.

        Raises:
            NotMeasurableError: If an attacked class has no test image of its own.
        """
        measured = []
        for one in truth.evaluators:
            members, others = _nearest(one.model, result, truth)
            gap, total = members - others, members + others
            for variant, values in (("", gap), ("relative", gap / total.clamp_min(1e-12))):
                measured.append(Measurement(values=values, groups=result.target, variant=variant, evaluator=one.name))
        return measured


def nearest_of(distance: Tensor, count: int) -> Tensor:
    """Return the expected distance to the nearest of ``count`` images drawn without replacement.

    The ``i``-th nearest of ``n`` is the nearest one drawn with probability ``C(n - i, count - 1) / C(n, count)``.

    Args:
        distance: Distances of samples to all images, shape ``(N, n)``.
        count: How many are drawn, at most ``n``.

    Returns:
        Expectations of shape ``(N,)``.
    """
    total = distance.shape[1]
    left, chances = 1.0, []
    for rank in range(total - count + 1):
        here = left * count / (total - rank)  # drawn, given that no nearer one was
        chances.append(here)
        left -= here
    return distance.sort(1).values[:, : len(chances)] @ torch.tensor(chances, dtype=distance.dtype)


def _nearest(model: Classifier, result: Reconstruction, truth: ClassTruth) -> Tensor:
    """Return squared distances to the nearest training and the nearest test image of the class, ``(2, N)``."""
    samples, test = penultimate(model, result.values), truth.private.test
    nearest = torch.empty(2, len(result), dtype=torch.float64)
    for label in result.target.unique().tolist():
        own, members = result.target == label, truth.images_of(label)
        others = test.x[test.y == label]
        others = others[[not bool((members == x).flatten(1).all(1).any()) for x in others]]
        if not len(others) or not len(members):
            raise NotMeasurableError(
                f"Class {label} has no test image that is not a training image, so there is nothing to compare with."
            )
        count = min(len(members), len(others))
        for side, images in enumerate((members, others)):
            nearest[side, own] = nearest_of(distances(samples[own], penultimate(model, images)).square(), count)
    return nearest
