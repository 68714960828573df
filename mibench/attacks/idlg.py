r"""iDLG: improved deep leakage from gradients (Zhao et al., arXiv 2001.02610, 2020).

The attacker of DLG need not search the label: for one example under cross-entropy with hard labels, the gradient in the
last layer has the opposite sign in the row of the true class,

.. math:: \partial L / \partial b_c = p_c - 1[c = y], \qquad \partial L / \partial W_c = (p_c - 1[c = y]) \, h^T.

The label is read off, and DLG's distance is minimised over the input alone. Official code:
https://github.com/PatrickZH/Improved-Deep-Leakage-from-Gradients (its rule is ``row_sum``, right where the features
:math:`h` are never negative; ``bias_sign`` and ``inner_product``, the paper's argument, hold for any features). The
rule holds for a batch of one: larger client batches are refused. Deviations: those of DLG (restarts, lowest distance
met).
"""

from __future__ import annotations

from mibench.attacks.base import AttackCard
from mibench.attacks.families.lbfgs_search import LbfgsSearch
from mibench.optim.label_recovery import LabelRule


class Idlg(LbfgsSearch):
    """The search of DLG with the label read off the classifier's gradient."""

    card = AttackCard(
        name="idlg",
        title="iDLG",
        modalities=("image",),
        year=2020,
        code="https://github.com/PatrickZH/Improved-Deep-Leakage-from-Gradients",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
        largest_batch=1,
        revision=2,
    )

    label_rule: LabelRule = "row_sum"
    """``row_sum`` (the authors' code), ``bias_sign`` or ``inner_product``."""
