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

from typing import ClassVar

from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.families.to_private import DistanceToPrivate


class FeatureDistance(DistanceToPrivate):
    """Squared feature distance to the centroid of the class, per evaluation model."""

    card = MetricCard(
        name="feature_distance",
        title="Feature distance",
        modalities=("image", "audio"),
        year=2020,
        bib="gmi",
        tasks=("class",),
        higher_is_leakier=False,
    )

    variant: ClassVar[str] = "centroid"

    def distance(self, samples: Tensor, private: Tensor) -> Tensor:
        """Return the squared distance to the mean of the private features."""
        return (samples - private.mean(0)).square().sum(1)
