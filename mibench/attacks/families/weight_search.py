"""The search of CI-Net: the weights of untrained generators descend until their images have the client's gradient."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from mibench.access import GradientsView
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.nn.stacked import StackedNetworks
from mibench.optim.gradient_distance import DistanceName
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import Dropping, Found, Sent
from mibench.optim.regularisers import batch_variation
from mibench.optim.row_adam import Adam
from mibench.options import Count, NonNegative, Positive


class WeightSearch(GradientSearch):
    """Distance of gradients over the weights of untrained generators, signed Adam."""

    length = ("iterations",)

    iterations: Count = 5000
    """Steps in a generator's weights."""
    lr: Positive = 1e-3
    """Their size."""
    signed: bool = True
    """Whether Adam sees the gradient's sign."""
    tv: NonNegative = 0.0
    """Weight of the total variation of the images in [0, 1]."""
    distance: DistanceName = "cosine"
    """``cosine``, ``layer_cosine`` or ``squared``."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""
    restarts: Count = 1
    """Searches per message, each with noise and networks of its own."""
    tolerance: NonNegative = 1e-7
    """Distance below which a search is done."""

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
            return apart + self.tv * batch_variation(images), apart, images

        dropping = Dropping(tolerance=self.tolerance)
        Adam(self.iterations, self.lr, self.signed, dropping=dropping).minimise(
            objective, generators.weights, found, steps
        )
