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

from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import GradientSearch
from mibench.card import AttackCard
from mibench.knowledge import Knowledge
from mibench.optim.gradient_distance import squared
from mibench.optim.gradient_matching import Dropping, Found, Lbfgs, Pixels, Sent
from mibench.options import Count, NonNegative, Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceGoal


class Dlg(GradientSearch):
    """Joint search of inputs and labels by the squared distance of gradients.

    Args:
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
        name="dlg",
        title="DLG",
        modalities=("image",),
        year=2019,
        bib="dlg",
        code="https://github.com/mit-han-lab/dlg",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training"),
        revision=2,
    )

    def __init__(
        self,
        *,
        iterations: Count = 300,
        inner: Count = 20,
        lr: Positive = 1.0,
        history: Count = 100,
        line_search: bool = False,
        restarts: Count = 4,
        matched: NonNegative = 1e-6,
        tolerance: NonNegative = 1e-10,
    ) -> None:
        self.descent = Lbfgs(iterations, inner, lr, history, line_search)
        self.restarts = restarts
        self.dropping = Dropping(tolerance=tolerance, settled=matched)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Returns the inputs and labels behind every message."""
        labels, pixels, problems = self.labels(view, knowledge), Pixels.of(view), self.problems(view)
        sent, found = Sent(view.messages, problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, pixels))

        def distance(rows: Tensor, u: Tensor, logits: Tensor | None = None) -> tuple[Tensor, Tensor]:
            y = labels[problems.message(rows)] if labels is not None else None
            if logits is not None:
                y = logits.softmax(-1)
            assert y is not None
            apart = squared(view.updates(pixels.images(u), y), sent.of(rows))
            return apart, apart

        starts = [self.noise(view, problems, "inputs", view.batch_size, *view.spec.shape)]
        if labels is None:
            starts.append(self.noise(view, problems, "labels", view.batch_size, view.spec.classes))
        steps = self.steps(self.descent.iterations)
        self.descent.minimise(distance, starts, found, steps, dropping=self.dropping)
        return self.answer(view, goal, found, labels, pixels)
