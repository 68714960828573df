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

from mibench.attacks.dlg import Dlg
from mibench.card import AttackCard
from mibench.optim.label_recovery import check_label_rule
from mibench.options import Count, NonNegative, Positive


class Idlg(Dlg):
    """DLG with the label read off the classifier's gradient.

    Args:
        label_rule: ``row_sum`` (the authors' code), ``bias_sign`` or ``inner_product``.
        iterations: Outer L-BFGS steps.
        inner: L-BFGS moves inside each.
        lr: Step length.
        history: Pairs of differences that L-BFGS remembers.
        line_search: Whether a step is halved until the distance falls.
        restarts: Starts per message.
        matched: Squared gradient distance below which a message goes on with that start alone.
        tolerance: Squared gradient distance below which it is done.
    """

    card = AttackCard(
        name="idlg",
        title="iDLG",
        modalities=("image",),
        year=2020,
        bib="idlg",
        code="https://github.com/PatrickZH/Improved-Deep-Leakage-from-Gradients",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
        largest_batch=1,
        revision=2,
    )

    def __init__(
        self,
        *,
        label_rule: str = "row_sum",
        iterations: Count = 300,
        inner: Count = 20,
        lr: Positive = 1.0,
        history: Count = 100,
        line_search: bool = False,
        restarts: Count = 4,
        matched: NonNegative = 1e-6,
        tolerance: NonNegative = 1e-10,
    ) -> None:
        super().__init__(
            iterations=iterations,
            inner=inner,
            lr=lr,
            history=history,
            line_search=line_search,
            restarts=restarts,
            matched=matched,
            tolerance=tolerance,
        )
        self.label_rule = check_label_rule(label_rule)
