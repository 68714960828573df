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

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import GradientSearch
from mibench.card import AttackCard
from mibench.knowledge import Knowledge
from mibench.optim.gradient_distance import DISTANCES, DistanceName, on_sent
from mibench.optim.gradient_matching import Adam, Dropping, Found, Pixels, Sent
from mibench.optim.label_recovery import check_label_rule
from mibench.optim.regularisers import batch_variation
from mibench.options import Count, CountOrNone, NonNegative, Positive, Share
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceGoal


class InvertingGradients(GradientSearch):
    """Cosine distance of gradients with total variation, signed Adam and a box.

    Args:
        iterations: Steps.
        lr: Step size, in the model's own input space.
        signed: Whether Adam sees the gradient's sign.
        boxed: Whether inputs are clamped to the pixels' box after every step.
        decay_at: Shares of the steps after which the step size is divided by ten.
        tv: Weight of the total variation.
        distance: ``cosine``, ``layer_cosine`` or ``squared``.
        mask_sent: Whether only entries that were sent as other than zero are compared.
        skip_last: Parameter tensors at the model's end that are not compared.
        label_rule: How labels are read off where they are not granted.
        restarts: Starts per message.
        halve_at: Shares of the steps after which the worse half of a message's starts is dropped.
        tolerance: Distance below which a message is done.
    """

    card = AttackCard(
        name="inverting_gradients",
        title="Inverting Gradients",
        modalities=("image",),
        year=2020,
        bib="inverting_gradients",
        code="https://github.com/JonasGeiping/invertinggradients",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "defense_loss"),
    )

    def __init__(
        self,
        *,
        iterations: Count = 4800,
        lr: Positive = 0.1,
        signed: bool = True,
        boxed: bool = True,
        decay_at: Sequence[Share] = (3 / 8, 5 / 8, 7 / 8),
        tv: NonNegative = 0.1,
        distance: DistanceName = "cosine",
        mask_sent: bool = False,
        skip_last: CountOrNone = 0,
        label_rule: str = "bias_corrected",
        restarts: Count = 1,
        halve_at: Sequence[Share] = (),
        tolerance: NonNegative = 1e-7,
    ) -> None:
        self.descent = Adam(iterations, lr, signed, decay_at)
        self.boxed = boxed
        self.tv = tv
        self.distance = on_sent(DISTANCES[distance]) if mask_sent else DISTANCES[distance]
        self.skip_last = skip_last
        self.label_rule = check_label_rule(label_rule)
        self.restarts = restarts
        self.dropping = Dropping(tolerance=tolerance, halve_at=halve_at)

    def sent(self, view: GradientsView) -> Sequence[Mapping[str, Tensor]]:
        """Return of every message what :meth:`apart` compares with, by parameter name."""
        return view.messages

    def apart(self, view: GradientsView, x: Tensor, y: Tensor, sent: dict[str, Tensor]) -> Tensor:
        """Return the distance of every problem from its message, shape ``(n,)``, for images and class ids."""
        compared = dict(list(sent.items())[: max(1, len(sent) - self.skip_last)])
        return self.distance(view.updates(x, y), compared)

    def penalty(self, u: Tensor, pixels: Pixels) -> Tensor:
        """Return what is added to each problem's distance, shape ``(n,)``, for inputs ``(n, batch, C, H, W)``."""
        return self.tv * batch_variation(u)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inputs and labels behind every message."""
        labels, pixels, problems = self.labels(view, knowledge), Pixels.of(view), self.problems(view)
        assert labels is not None
        sent, found = Sent(self.sent(view), problems), Found(problems)
        self.keep(lambda: self.answer(view, goal, found, labels, pixels))

        def objective(rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            apart = self.apart(view, pixels.images(u), labels[problems.message(rows)], sent.of(rows))
            return apart + self.penalty(u, pixels), apart

        start = self.noise(view, problems, "inputs", view.batch_size, *view.spec.shape)
        self.descent.minimise(
            objective,
            [start],
            found,
            self.steps(self.descent.iterations),
            dropping=self.dropping,
            project=(lambda rows, moving: [pixels.boxed(moving[0])]) if self.boxed else None,
        )
        return self.answer(view, goal, found, labels, pixels)
