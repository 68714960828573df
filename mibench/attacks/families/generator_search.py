"""The descent of GIFD: what a generator makes images of descends by Adam whose step size rises, holds and falls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from mibench.attacks.families.gradient_search import GradientSearch
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import Found, Objective
from mibench.optim.row_adam import Adam
from mibench.options import Count, Positive


class GeneratorSearch(GradientSearch):
    """Search of a generator's variables; the step size rises over 1/20 of the steps and falls over the last 3/4."""

    length = ("iterations",)

    iterations: Count = 1000
    """Steps of every descent."""
    lr: Positive = 0.1
    """Adam's largest step size."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""
    restarts: Count = 4
    """Starts per message."""

    def descend(
        self,
        objective: Objective,
        start: Sequence[Tensor],
        found: Found,
        project: Callable[[Tensor, Sequence[Tensor]], Sequence[Tensor]],
        what: str = "",
    ) -> None:
        """Descend from ``start``, bring every step back by ``project``, and offer every point to ``found``."""
        descent = Adam(self.iterations, self.lr, rise=0.05, fall=0.75)
        descent.minimise(objective, start, found, self.steps(self.iterations, what), project=project)
