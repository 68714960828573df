"""The family of precision, recall, density and coverage: samples against private training images, class by class.

Both are seen in the penultimate features of each evaluation model.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.metrics.base import Measurement, Metric
from mibench.nn.features import penultimate
from mibench.nn.neighbourhoods import Overlap, overlap
from mibench.options import Count
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class Overlapping(Metric[ClassTruth]):
    """One of the four shares of :mod:`mibench.nn.neighbourhoods`.

    Classes with at most ``neighbours + 1`` images or samples are left out; the number of values is that of the classes
    that count.
    """

    neighbours: Count = 3
    """The neighbour that a ball reaches to (k)."""

    @abstractmethod
    def share(self, found: Overlap) -> float:
        """Return the metric's own of the four shares."""

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return one share per class, shape ``(classes,)``, for each evaluation model."""
        least = self.neighbours + 2
        sizes = [(label, len(truth.images_of(label)), count) for label, count in _counts(result.target)]
        classes = [label for label, real, samples in sizes if min(real, samples) >= least]
        variant = f"k={self.neighbours}"
        if not classes:
            reason = f"No class has {least} private images and {least} samples, which k={self.neighbours} asks for."
            return [Measurement(values=torch.empty(0), groups=torch.empty(0), variant=variant, reason=reason)]
        measured = []
        for one in truth.evaluators:
            samples = penultimate(one.model, result.values)
            shares = []
            for label in classes:
                real, own = penultimate(one.model, truth.images_of(label)), samples[result.target == label]
                shares.append(self.share(overlap(real, own, self.neighbours)))
            values = torch.tensor(shares, dtype=torch.float64)
            measured.append(
                Measurement(values=values, groups=torch.tensor(classes), variant=variant, evaluator=one.name)
            )
        return measured


def _counts(target: Tensor) -> list[tuple[int, int]]:
    labels, counts = target.unique(return_counts=True)
    return list(zip(labels.tolist(), counts.tolist(), strict=True))
