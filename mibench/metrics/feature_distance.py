"""Feature distance: how far a reconstruction lies from the centre of the private images of its class.

Zhang et al., CVPR 2020. The squared Euclidean distance, summed over the penultimate features of an evaluation
model, between a reconstruction and the mean feature of the private training images of the target class: variant
``centroid``. The literature uses the same name for two other things: the distance to the *nearest* private
image (here :mod:`mibench.metrics.knn_distance`; PPA's delta under its evaluation model), and a distance between
logits of the attacked model. A real image is not at distance 0 from its class's centre, so the distances of
real images are the yardstick, and a value below theirs is no better likeness. All classes weigh the same. A
missing sample arrives as a mid-grey image and is measured as such.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric, distances_by_class
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth


class FeatureDistance(Metric[ClassTruth]):
    """Squared feature distance to the centroid of the class, per evaluation model."""

    card = MetricCard(
        name="feature_distance",
        title="Feature distance",
        modalities=("image",),
        year=2020,
        bib="gmi",
        tasks=("class",),
        higher_is_leakier=False,
    )

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return one distance per sample, shape ``(N,)``, for each evaluation model."""
        return [
            Measurement(
                values=distances_by_class(one.model, result, truth, _to_centroid),
                groups=result.target,
                variant="centroid",
                evaluator=one.name,
            )
            for one in truth.evaluators
        ]


def _to_centroid(samples: Tensor, private: Tensor) -> Tensor:
    return (samples - private.mean(0)).square().sum(1)
