"""The family of DLG: inputs, and labels where nobody knows them, are searched by L-BFGS on the squared distance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import GradientSearch
from mibench.knowledge import Knowledge
from mibench.optim.gradient_distance import squared
from mibench.optim.gradient_matching import Dropping, Found, Lbfgs, Pixels, Sent
from mibench.options import Count, NonNegative, Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceGoal


@dataclass(kw_only=True, eq=False)
class LbfgsSearch(GradientSearch):
    """L-BFGS from several starts per message, until one of them has matched it."""

    iterations: Count = 300
    """Outer L-BFGS steps."""
    inner: Count = 20
    """L-BFGS moves inside each."""
    lr: Positive = 1.0
    """Step length."""
    history: Count = 100
    """Pairs of differences that L-BFGS remembers."""
    line_search: bool = False
    """Whether a step is halved until the distance falls."""
    restarts: Count = 4
    """Starts per message; the one of lowest distance is returned."""
    matched: NonNegative = 1e-6
    """Squared gradient distance below which a message goes on with that start alone."""
    tolerance: NonNegative = 1e-10
    """Squared gradient distance below which it is done."""

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message."""
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
        Lbfgs(self.iterations, self.inner, self.lr, self.history, self.line_search).minimise(
            distance,
            starts,
            found,
            self.steps(self.iterations),
            dropping=Dropping(tolerance=self.tolerance, settled=self.matched),
        )
        return self.answer(view, goal, found, labels, pixels)
