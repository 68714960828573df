r"""RGCIR: an effective and practical gradient inversion attack (Luo et al., Int. J. of Intelligent Systems, 2022).

An inversion by the direction of the gradient that needs no batch-norm statistics. A soft box keeps inputs in the range
of images:

.. math:: \min_x 1 - \frac{\langle g(x), g \rangle}{\| g(x) \| \| g \|}
    + \alpha_{in} \Big( \sum (x - hi)_+^2 + \sum (lo - x)_+^2 + \alpha_2 \overline{x^2} \Big)
    + \alpha_{tv} \mathrm{TV}(x)

by the loop of Inverting Gradients (:mod:`mibench.attacks.inverting_gradients`): signed Adam and decaying steps; labels
are read off the last layer. :math:`lo, hi` are what images in [0, 1] give as the model's inputs; sums run over the
batch. The answer is clamped to them at the end.

No official code was found and the paper was not at hand. From descriptions of it: a cosine comparison that is refined,
a regularisation of the input, total variation as denoiser. Inferred are both formulas, all weights, the optimiser and
its schedule. How the cosine is refined is not known. One guess is a comparison tensor by tensor, so that those with a
short gradient count as much as the others: ``distance=layer_cosine`` is the mean of the tensors' cosine distances,
without those that were sent as zeros. It was the default up to revision 1, with a total variation of 0.01.

The default is one cosine over all parameters and a total variation of 0.03. Neither distance is the better one
everywhere: on an untrained ``cnn`` one cosine brings out more of single images, on an untrained ``lenet`` the
comparison tensor by tensor, which ``conf/calibration`` therefore sets there. No committed rows compare the two.
"""

from __future__ import annotations

from torch import Tensor

from mibench.attacks.base import AttackCard
from mibench.attacks.families.signed_search import SignedSearch
from mibench.optim.gradient_distance import DistanceName
from mibench.optim.input_space import Pixels
from mibench.options import Count, NonNegative


class Rgcir(SignedSearch):
    """Cosine distance with a soft box and total variation."""

    card = AttackCard(
        name="rgcir",
        title="RGCIR",
        modalities=("image",),
        revision=2,
        year=2022,
        fidelity="reconstruction",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "defense_loss"),
    )

    iterations: Count = 5000
    """Steps."""
    tv: NonNegative = 0.03
    """Weight of the total variation."""
    in_range: NonNegative = 1e-3
    """Weight of the input regularisation."""
    l2: NonNegative = 1e-6
    """Weight, within it, of the inputs' mean square."""
    distance: DistanceName = "cosine"
    """``cosine`` of all parameters together, ``layer_cosine`` (mean over tensors, a guess) or ``squared``."""
    restarts: Count = 2
    """Starts per message."""

    def penalty(self, u: Tensor, pixels: Pixels) -> Tensor:
        """Return the weighted priors of every problem, shape ``(n,)``, for inputs ``(n, batch, C, H, W)``."""
        outside = (u - pixels.project(u)).square().flatten(1).sum(1)
        return super().penalty(u, pixels) + self.in_range * (outside + self.l2 * u.square().flatten(1).mean(1))
