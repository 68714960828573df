"""The family of DLG: inputs, and labels where nobody knows them, are searched by L-BFGS on the squared distance."""

from __future__ import annotations

from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.optim.input_space import Pixels
from mibench.optim.problems import Dropping, Found, Sent
from mibench.optim.row_lbfgs import Lbfgs
from mibench.options import Count, NonNegative, Positive


class LbfgsSearch(GradientSearch):
    """L-BFGS from several starts per message, until one of them has matched it."""

    distance = "squared"

    length = ("iterations",)

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
        labels = self.labels(view, knowledge) if self.label_rule or knowledge.granted("labels") else None
        pixels, problems = Pixels.of(view), self.problems(view)
        sent, found = Sent(view.messages, problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, pixels))

        def objective(rows: Tensor, u: Tensor, *logits: Tensor) -> tuple[Tensor, Tensor]:
            y = logits[0].softmax(-1) if labels is None else labels[problems.message(rows)]
            apart = self.apart(view, pixels.to_inputs(u), y, sent.of(rows))
            return apart, apart

        starts = [self.noise(view, problems, "inputs", view.batch_size, *view.spec.shape)]
        if labels is None:
            starts.append(self.noise(view, problems, "labels", view.batch_size, view.spec.classes))
        dropping = Dropping(tolerance=self.tolerance, settled=self.matched)
        descent = Lbfgs(self.iterations, self.inner, self.lr, self.history, self.line_search, dropping)
        descent.minimise(objective, starts, found, self.steps(self.iterations))
        return self.answer(view, goal, found, labels, pixels)
