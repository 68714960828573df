r"""DLG: deep leakage from gradients (Zhu et al., NeurIPS 2019).

The attacker is the server: it knows the global model and one client's gradient :math:`g = \nabla_\theta L(x, y)`. It
draws an input :math:`x' \sim N(0, I)` and label logits :math:`y' \sim N(0, I)`, computes the gradient they would have
given, and moves both until it is the client's:

.. math:: \min_{x', y'} \sum_l \| \nabla_{\theta_l} L(x', \mathrm{softmax}(y')) - g_l \|_2^2

with L-BFGS of step 1 and no line search. Returned are :math:`x'`, clamped to [0, 1], and the class of the largest
:math:`y'`. The model must be twice differentiable (sigmoid rather than ReLU), and labels of a batch that holds a class
twice are ambiguous. Official code: https://github.com/mit-han-lab/dlg. Deviations: that descent diverges for some
starts, so the attack makes up to ``restarts`` of them until one has ``matched``, and returns the point of lowest
distance (the script runs one start to its last iterate). Where ``knowledge.labels`` is granted, only the input is
searched.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import Attack
from mibench.card import AttackCard
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.gradient_matching import Lbfgs, squared_distance
from mibench.optim.selection import Best
from mibench.options import Count, NonNegative, Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceGoal


class Dlg(Attack[GradientsView, InstanceGoal]):
    """Joint search of inputs and labels by the squared distance of gradients.

    Args:
        iterations: Outer L-BFGS steps of one start.
        inner: L-BFGS iterations inside each.
        lr: Step length.
        history: Pairs of differences that L-BFGS remembers.
        restarts: Starts per message at the most.
        matched: Squared gradient distance below which a message needs no further start.
        tolerance: Squared gradient distance that ends a descent.
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
        uses=("labels",),
    )

    def __init__(
        self,
        *,
        iterations: Count = 300,
        inner: Count = 20,
        lr: Positive = 1.0,
        history: Count = 100,
        restarts: Count = 4,
        matched: NonNegative = 1e-6,
        tolerance: NonNegative = 1e-10,
    ) -> None:
        if restarts < 1:
            raise UserError(f"Expected attack.restarts to be at least 1, but got {restarts}.")
        self.descent = Lbfgs(iterations, inner, lr, history, tolerance)
        self.restarts = restarts
        self.matched = matched

    def labels(self, view: GradientsView, knowledge: Knowledge, message: int) -> Tensor | None:
        """Returns the class ids of one message's batch where the attacker has them, None where they are searched."""
        if not knowledge.granted("labels"):
            return None
        granted: Tensor = knowledge.fact("labels")
        return granted.reshape(-1, view.batch_size)[message].to(view.device)

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Returns the inputs and labels behind every message."""
        found = [Best() for _ in range(goal.messages)]
        known = [self.labels(view, knowledge, message) for message in range(goal.messages)]
        self.keep(lambda: self._answer(view, goal, found, known))
        for message in self.steps(goal.messages):
            for restart in range(self.restarts):
                draws = self.draws(view.device, "latents", message, restart)
                self._match(view, message, known[message], draws, found[message])
                if float(found[message].loss) < self.matched:
                    break
        return self._answer(view, goal, found, known)

    def _match(
        self, view: GradientsView, message: int, labels: Tensor | None, draws: torch.Generator, best: Best
    ) -> None:
        """Descends from one start."""

        def start(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draws, device=view.device).requires_grad_(True)

        sent = view.messages[message]
        x = start(view.batch_size, *view.spec.shape)
        if labels is not None:
            self.descent.minimise(lambda: squared_distance(view.gradient(x, labels), sent), [x], best)
            return
        y = start(view.batch_size, view.spec.classes)
        self.descent.minimise(lambda: squared_distance(view.gradient(x, y.softmax(1)), sent), [x, y], best)

    def _answer(
        self, view: GradientsView, goal: InstanceGoal, found: Sequence[Best], known: Sequence[Tensor | None]
    ) -> Reconstruction:
        """Returns the best of every message; those that no finite distance was met for are missing."""
        nothing = torch.full((view.batch_size, *view.spec.shape), 0.5, device=view.device)
        inputs, labels, valid = [], [], []
        for best, given in zip(found, known, strict=True):
            x = best.values[0] if best.values else nothing
            searched = best.values[1].argmax(1) if len(best.values) > 1 else None
            y = given if given is not None else searched
            inputs.append(x.clamp(0, 1))
            labels.append(y if y is not None else torch.zeros(view.batch_size, dtype=torch.long, device=view.device))
            valid.append(best.loss.isfinite().to(view.device).expand(view.batch_size))
        return Reconstruction(torch.cat(inputs), goal.target, torch.cat(labels), torch.cat(valid))
