"""The family of distances between samples and the private training images of their class, in penultimate features."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from mibench.metrics.base import Measurement, Metric
from mibench.model import Classifier
from mibench.nn.features import penultimate
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class DistanceToPrivate(Metric[ClassTruth]):
    """A squared feature distance of every sample to the images of its class, per evaluation model.

    Attributes:
        variant: What the distance is measured to, where the metric's name does not say so.
    """

    variant: ClassVar[str] = ""

    @abstractmethod
    def distance(self, samples: Tensor, private: Tensor) -> Tensor:
        """Return the distance ``(n,)`` of features ``(n, F)`` to those of private images ``(m, F)``."""

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return one distance per sample, shape ``(N,)``, for each evaluation model."""
        return [
            Measurement(self.distances(one.model, result, truth), result.target, self.variant, one.name)
            for one in truth.evaluators
        ]

    def distances(self, model: Classifier, result: Reconstruction, truth: ClassTruth) -> Tensor:
        """Return the distance of every sample by one evaluation model, shape ``(N,)``, in double precision."""
        samples = penultimate(model, result.values)
        distances = torch.empty(len(result), dtype=torch.float64)
        for label in result.target.unique().tolist():
            own = result.target == label
            distances[own] = self.distance(samples[own], penultimate(model, truth.images_of(label)))
        return distances
