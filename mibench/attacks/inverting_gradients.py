r"""Inverting gradients by their direction (Geiping et al., NeurIPS 2020).

The magnitude of a gradient says how well the model knows an example, its direction what the example looks like. With
the labels known or read off, the attacker searches the inputs whose gradient points where the client's does,

.. math:: \min_{x \in [0, 1]^n} 1 - \frac{\langle \nabla_\theta L(x, y), g \rangle}{\| \nabla_\theta L(x, y) \| \| g \|}
    + \alpha \, \mathrm{TV}(x)

with one cosine over all parameters together, Adam on the sign of the gradient, the step size divided by ten at 3/8, 5/8
and 7/8 of the way, and the inputs clamped to the pixels' box after every step. Of several starts the one of the lowest
cosine distance is returned. A client's several local steps are unrolled, and differences of parameters compared.
Official code: https://github.com/JonasGeiping/invertinggradients (labels given) and breaching (24,000 steps, weight
0.2). The weight of the total variation (a mean, in the model's own input space) fits one kind of model: 0.1 is made for
ResNets and stalls a LeNet. Deviations: labels are read off unless they are granted; kept is the iterate of the lowest
distance, not the last; ``halve_at`` drops hopeless starts early.

Two options are for the attacker who knows the client's defense: ``skip_last`` leaves out the tensors that it changes at
the model's end (so Balunovic et al., Bayesian Framework for Gradient Leakage, ICLR 2022, undo Soteria), and
``mask_sent`` what it pruned away.
"""

from __future__ import annotations

from torch import Tensor

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard
from mibench.attacks.families.signed_search import SignedSearch
from mibench.optim.gradient_distance import DistanceName
from mibench.options import CountOrNone


class InvertingGradients(SignedSearch):
    """Cosine distance of gradients with total variation, signed Adam and a box."""

    card = AttackCard(
        name="inverting_gradients",
        title="Inverting Gradients",
        modalities=("image",),
        year=2020,
        code="https://github.com/JonasGeiping/invertinggradients",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "defense_loss"),
    )

    boxed: bool = True
    """Whether inputs are clamped to the pixels' box after every step."""
    distance: DistanceName = "cosine"
    """``cosine``, ``layer_cosine`` or ``squared``."""
    mask_sent: bool = False
    """Whether only entries that were sent as other than zero are compared."""
    skip_last: CountOrNone = 0
    """Parameter tensors at the model's end that are not compared."""

    def apart(self, view: GradientsView, x: Tensor, y: Tensor, sent: dict[str, Tensor]) -> Tensor:
        """Return the distance of every problem from its message, without the last tensors."""
        return super().apart(view, x, y, dict(list(sent.items())[: max(1, len(sent) - self.skip_last)]))
