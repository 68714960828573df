"""Diversity: how far the reconstructions of one class lie from one another.

The mean Euclidean distance over all pairs of samples of a class, in the penultimate features of an evaluation model.
It separates attacks that return one image again and again from those that recover a distribution of them. Variety is
no leak by itself, since noise has it too, so there is no direction and no lift; the yardstick ``private`` is the same
distance between the private training images of the class. A missing sample arrives as a mid-grey image, so missing
samples are all alike.
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


class Diversity(Metric[ClassTruth]):
    """Mean pairwise feature distance within a class, per evaluation model."""

    card = MetricCard(
        name="diversity",
        title="Diversity",
        modalities=("image", "audio"),
        tasks=("class",),
        higher_is_leakier=None,
        default=False,
    )

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return each sample's mean distance to the others of its class, shape ``(N,)``, for each evaluation model.

        Raises:
            NotMeasurableError: If a class has a single sample.
        """
        labels, counts = result.target.unique(return_counts=True)
        if int(counts.min()) < 2:
            raise NotMeasurableError("One sample per class has no diversity; raise budget.samples.")
        shown = torch.isin(truth.private.train.y, labels)
        x, y = truth.private.train.x[shown], truth.private.train.y[shown]
        measured = []
        for one in truth.evaluators:
            samples = _to_others(one.model, result.values, result.target)
            private = _to_others(one.model, x, y)
            measured += [
                Measurement(values=samples, groups=result.target, evaluator=one.name),
                Measurement(values=private, groups=y, variant="private", evaluator=one.name, yardstick=True),
            ]
        return measured


def _to_others(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """Return the mean distance of every image to the others with its label; 0 where there are none."""
    features = penultimate(model, x)
    means = torch.zeros(len(x), dtype=torch.float64)
    for label in y.unique():
        own = y == label
        means[own] = distances(features[own], features[own]).sum(1) / max(1, int(own.sum()) - 1)
    return means
