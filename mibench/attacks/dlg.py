r"""DLG: deep leakage from gradients (Zhu et al., NeurIPS 2019).

The attacker is the server: it knows the global model and one client's gradient :math:`g = \nabla_\theta L(x, y)`. It
draws an input :math:`x' \sim N(0, I)` and label logits :math:`y' \sim N(0, I)`, computes the gradient they would have
given, and moves both until it is the client's:

.. math:: \min_{x', y'} \sum_l \| \nabla_{\theta_l} L(x', \mathrm{softmax}(y')) - g_l \|_2^2

with L-BFGS of step 1 and no line search. Returned are :math:`x'`, clamped to [0, 1], and the class of the largest
:math:`y'`. The model must be twice differentiable (sigmoid rather than ReLU), and labels of a batch that holds a class
twice are ambiguous. Official code: https://github.com/mit-han-lab/dlg. Deviations: that descent diverges for some
starts, so the attack makes ``restarts`` of them side by side, until one has ``matched``, and returns the point of
lowest distance (the script runs one start to its last iterate); ``line_search`` makes every start descend. Where
``knowledge.labels`` is granted, only the input is searched; a client's several local steps are unrolled.
"""

from __future__ import annotations

from mibench.attacks.base import AttackCard
from mibench.attacks.families.lbfgs_search import LbfgsSearch


class Dlg(LbfgsSearch):
    """Joint search of inputs and labels by the squared distance of gradients."""

    card = AttackCard(
        name="dlg",
        title="DLG",
        modalities=("image",),
        year=2019,
        code="https://github.com/mit-han-lab/dlg",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
        revision=2,
    )
