"""KNN distance: how near a reconstruction comes to some private training image of its class.

Zhang et al., CVPR 2020, and the line of work after it. For every reconstruction the smallest *squared*
Euclidean distance, summed over the penultimate features of an evaluation model, to the private training images
of the target class. It tells a likeness from a pattern that merely crosses the evaluator's decision boundary.
The scale is the evaluator's own, so numbers under different evaluators cannot be compared, and each is reported
by itself. All classes weigh the same, however many samples they have. A missing sample arrives as a mid-grey
image and is measured as such.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.metrics.families.to_private import DistanceToPrivate


class KnnDistance(DistanceToPrivate):
    """Squared feature distance to the nearest private training image of the class, per evaluation model."""

    card = MetricCard(
        name="knn_distance",
        title="KNN distance",
        modalities=("image", "audio"),
        year=2020,
        bib="gmi",
        tasks=("class",),
        higher_is_leakier=False,
    )

    def distance(self, samples: Tensor, private: Tensor) -> Tensor:
        """Return the squared distance to the nearest of the private features."""
        return torch.cdist(samples, private, compute_mode="donot_use_mm_for_euclid_dist").square().amin(1)
