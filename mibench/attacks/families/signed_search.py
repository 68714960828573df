"""The loop of Inverting Gradients: inputs descend by Adam on the gradient's sign, with an image prior and a box."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch
from mibench.optim.input_space import Pixels
from mibench.optim.label_recovery import LabelRule
from mibench.optim.problems import Dropping, Found, Sent
from mibench.optim.regularisers import batch_variation
from mibench.optim.row_adam import Adam
from mibench.options import Count, NonNegative, Positive, Share


class SignedSearch(GradientSearch):
    """Signed Adam with decaying steps on a distance of gradients and a penalty.

    Attributes:
        boxed: Whether inputs are clamped to the pixels' box after every step; methods that leave the choice to the user
            declare it as an option.
    """

    boxed = False

    length = ("iterations",)

    iterations: Count = 4800
    """Steps."""
    lr: Positive = 0.1
    """Step size, in the model's own input space."""
    signed: bool = True
    """Whether Adam sees the gradient's sign."""
    decay_at: Sequence[Share] = (3 / 8, 5 / 8, 7 / 8)
    """Shares of the steps after which the step size is divided by ten."""
    tv: NonNegative = 0.1
    """Weight of the total variation."""
    label_rule: LabelRule = "bias_corrected"
    """How labels are read off where they are not granted."""
    restarts: Count = 1
    """Starts per message."""
    halve_at: Sequence[Share] = ()
    """Shares of the steps after which the worse half of a message's starts is dropped."""
    tolerance: NonNegative = 1e-7
    """Distance below which a message is done."""

    def sent(self, view: GradientsView) -> Sequence[Mapping[str, Tensor]]:
        """Return of every message what :meth:`apart` compares with, by parameter name."""
        return view.messages

    def penalty(self, u: Tensor, pixels: Pixels) -> Tensor:
        """Return what is added to each problem's distance, shape ``(n,)``, for inputs ``(n, batch, C, H, W)``."""
        return self.tv * batch_variation(u)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message."""
        labels, pixels, problems = self.labels(view, knowledge), Pixels.of(view), self.problems(view)
        sent, found = Sent(self.sent(view), problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, pixels))

        def objective(rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            apart = self.apart(view, pixels.to_inputs(u), labels[problems.message(rows)], sent.of(rows))
            return apart + self.penalty(u, pixels), apart

        dropping = Dropping(tolerance=self.tolerance, halve_at=self.halve_at)
        Adam(self.iterations, self.lr, self.signed, self.decay_at, dropping=dropping).minimise(
            objective,
            [self.noise(view, problems, "inputs", view.batch_size, *view.spec.shape)],
            found,
            self.steps(self.iterations),
            project=(lambda rows, moving: [pixels.project(moving[0])]) if self.boxed else None,
        )
        return self.answer(view, goal, found, labels, pixels)
