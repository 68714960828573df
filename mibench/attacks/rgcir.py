r"""RGCIR: an effective and practical gradient inversion attack (Luo et al., Int. J. of Intelligent Systems, 2022).

An inversion by the direction of the gradient that needs no batch-norm statistics. Layers are compared one by one, so
that those with a short gradient count as much as the others, and inputs are kept in the range of images softly:

.. math:: \min_x \frac{1}{L} \sum_l \Big( 1 - \frac{\langle g_l(x), g_l \rangle}{\| g_l(x) \| \| g_l \|} \Big)
    + \alpha_{in} \Big( \sum (x - hi)_+^2 + \sum (lo - x)_+^2 + \alpha_2 \overline{x^2} \Big)
    + \alpha_{tv} \mathrm{TV}(x)

by the loop of Inverting Gradients (:mod:`mibench.attacks.inverting_gradients`): signed Adam and decaying steps; labels
are read off the last layer. :math:`lo, hi` are what images in [0, 1] give as the model's inputs; sums run over the
batch. The answer is clamped to them at the end.

No official code was found and the paper was not at hand. From descriptions of it: a cosine comparison that is refined,
a regularisation of the input, total variation as denoiser. Inferred are both formulas (``distance=cosine`` compares all
layers together instead), all weights, the optimiser and its schedule. Tensors that were sent as zeros are left out.
"""

from __future__ import annotations

from torch import Tensor

from mibench.attacks.base import AttackCard
from mibench.attacks.families.signed_search import SignedSearch
from mibench.optim.gradient_distance import DistanceName
from mibench.optim.input_space import Pixels
from mibench.options import Count, NonNegative


class Rgcir(SignedSearch):
    """Cosine distance layer by layer, with a soft box and total variation."""

    card = AttackCard(
        name="rgcir",
        title="RGCIR",
        modalities=("image",),
        year=2022,
        fidelity="reconstruction",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "defense_loss"),
    )

    iterations: Count = 5000
    """Steps."""
    tv: NonNegative = 0.01
    """Weight of the total variation."""
    in_range: NonNegative = 1e-3
    """Weight of the input regularisation."""
    l2: NonNegative = 1e-6
    """Weight, within it, of the inputs' mean square."""
    distance: DistanceName = "layer_cosine"
    """``layer_cosine``, ``cosine`` or ``squared``."""
    restarts: Count = 2
    """Starts per message."""

    def penalty(self, u: Tensor, pixels: Pixels) -> Tensor:
        """Return the weighted priors of every problem, shape ``(n,)``, for inputs ``(n, batch, C, H, W)``."""
        outside = (u - pixels.project(u)).square().flatten(1).sum(1)
        return super().penalty(u, pixels) + self.in_range * (outside + self.l2 * u.square().flatten(1).mean(1))
