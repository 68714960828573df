"""The family of CI-Net: the weights of an untrained generator are searched, whose images' gradient is the one sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from mibench.access import GradientsView
from mibench.attacks.base import GradientSearch
from mibench.nn.stacked import StackedNetworks
from mibench.optim.gradient_distance import DISTANCES, DistanceName
from mibench.optim.gradient_matching import Adam, Dropping, Found, Sent
from mibench.optim.label_recovery import LabelRule
from mibench.optim.regularisers import batch_variation
from mibench.options import Count, NonNegative, Positive


@dataclass(kw_only=True, eq=False)
class NetworkSearch(GradientSearch):
    """Search of generators' weights by signed Adam; a paper says which generators."""

    iterations: Count = 5000
    """Steps in the generator's weights."""
    lr: Positive = 1e-3
    """Step size."""
    signed: bool = True
    """Whether Adam sees the gradient's sign."""
    tv: NonNegative = 0.0
    """Weight of the total variation of the images in [0, 1]."""
    distance: DistanceName = "cosine"
    """``cosine``, ``layer_cosine`` or ``squared``."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""
    restarts: Count = 1
    """Searches per message, each from noise of its own."""
    tolerance: NonNegative = 1e-7
    """Distance below which a message is done."""

    def apart(self, view: GradientsView, images: Tensor, labels: Tensor, sent: dict[str, Tensor]) -> Tensor:
        """Return the distance of every problem from its message, shape ``(n,)``, for images and class ids."""
        return DISTANCES[self.distance](view.updates(images, labels), sent)

    def descend(
        self,
        view: GradientsView,
        labels: Tensor,
        sent: Sent,
        generators: StackedNetworks,
        u: Tensor,
        found: Found,
        steps: Iterable[int],
    ) -> None:
        """Search the generators' weights and offer every image to ``found``; the noise ``u`` stays as it is."""

        def objective(rows: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            images = generators(weights, u[rows])
            apart = self.apart(view, images, labels[found.problems.message(rows)], sent.of(rows))
            rough = batch_variation(images)
            return apart + self.tv * rough, apart, images

        Adam(self.iterations, self.lr, self.signed).minimise(
            objective, generators.weights, found, steps, dropping=Dropping(tolerance=self.tolerance)
        )
