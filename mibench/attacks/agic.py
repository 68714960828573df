r"""AGIC: approximate gradient inversion of federated averaging (Xu et al., SRDS 2022).

A client that takes K local steps of size :math:`\eta` sends the difference :math:`\Delta = w_0 - w_K` of its
parameters. Instead of simulating those steps, whose order of examples the attacker may not even know, AGIC takes
:math:`\hat g = \Delta / (\eta K)` for *one* gradient, at :math:`w_0`, of all N examples, which holds for small
:math:`\eta K`. What is searched is, with weights that grow along the network,

.. math:: \min_{x \in [0, 1]^n} 1 - \frac{\sum_l w_l \langle \nabla_{\theta_l} L(x, y), \hat g_l \rangle}
    {\sqrt{\sum_l w_l \| \nabla_{\theta_l} L(x, y) \|^2 \sum_l w_l \| \hat g_l \|^2}} + \alpha \, \mathrm{TV}(x)

by the loop of Inverting Gradients (:mod:`mibench.attacks.inverting_gradients`): signed Adam, decaying steps, a box. A
step costs one gradient of second order whatever K is. With one local step and equal weights it is Inverting Gradients.

No official code was found, and the weights' formula is not in the abstract, which says that they increase: inferred is
that they rise linearly from 1 at the first layer to ``last_layer`` at the last, a layer's weight and bias alike. Left
out is the sum over updates of several epochs on the same data: the clients of this benchmark hold new batches in every
round. The cosine has no scale, so the division by :math:`\eta K` changes no image, and the attacker need not know it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard
from mibench.attacks.families.signed_search import SignedSearch
from mibench.optim.gradient_distance import cosine
from mibench.options import NonNegative, Positive


class Agic(SignedSearch):
    """Weighted cosine between one gradient of the whole batch and the client's averaged update."""

    card = AttackCard(
        name="agic",
        title="AGIC",
        modalities=("image",),
        year=2022,
        fidelity="reconstruction",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "defense_loss"),
    )

    boxed: bool = True
    """Whether inputs are clamped to the pixels' box after every step."""
    tv: NonNegative = 0.01
    """Weight of the total variation."""
    last_layer: Positive = 5.0
    """Weight of the last layer in the cosine; the first has 1."""

    def sent(self, view: GradientsView) -> Sequence[Mapping[str, Tensor]]:
        """Return every message as one gradient."""
        return view.as_gradients()

    def apart(self, view: GradientsView, x: Tensor, y: Tensor, sent: dict[str, Tensor]) -> Tensor:
        """Return the weighted cosine distance of every problem's one gradient from its message, shape ``(n,)``."""
        return cosine(view.gradients(x, y), sent, ramp(sent, self.last_layer))


def ramp(names: Iterable[str], last: float) -> list[float]:
    """Return a weight per parameter: 1 in the first layer, rising linearly from layer to layer to ``last``.

    >>> ramp(["0.weight", "0.bias", "1.weight", "head.weight", "head.bias"], 5.0)
    [1.0, 1.0, 3.0, 5.0, 5.0]
    """
    layers = [name.rpartition(".")[0] for name in names]
    order = list(dict.fromkeys(layers))
    return [1 + (last - 1) * order.index(layer) / max(1, len(order) - 1) for layer in layers]
