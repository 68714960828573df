r"""MI-Face: model inversion by confidence (Fredrikson et al., CCS 2015).

Fredrikson, Jha and Ristenpart, Model Inversion Attacks that Exploit Confidence Information and Basic Countermeasures.
The attacker owns the target's weights and nothing else. For a class :math:`y` it descends the cost :math:`c(x) = 1 -
p_y(x)` in pixel space,

.. math:: x_i = \mathrm{PROCESS}(x_{i-1} - \lambda \nabla c(x_{i-1})), \qquad i = 1 \ldots \alpha,

stops where :math:`c(x_i) \ge \max(c(x_{i-1}), \ldots, c(x_{i-\beta}))` (no progress) or :math:`p_y(x_i) \ge \gamma`,
and returns the :math:`x_i` of lowest cost. The paper gives :math:`\alpha = 5000, \beta = 100, \gamma = 0.99, \lambda =
0.1`; there is no official code. Deviations: the paper starts from black, which would make all samples of a class the
same image, so every pixel starts from a uniform draw in ``[0, start]`` (``start=0`` is the paper's). PROCESS clips to
[0, 1], as in IBM's Adversarial Robustness Toolbox: an image that reaches :math:`\gamma` outside the range loses it
when it is clipped in the end. All samples descend together, each frozen where its own rule stops it. The gradient of
:math:`1 - p_y` vanishes where the target is sure of another class; ``cost=neg_log_p`` descends :math:`-\log p_y`
instead.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from mibench.access import WhiteBoxView
from mibench.attacks.base import Attack
from mibench.card import AttackCard
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.selection import take_best
from mibench.options import Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassGoal

COSTS = ("one_minus_p", "neg_log_p")


class MiFace(Attack[WhiteBoxView, ClassGoal]):
    """Gradient descent on the target's confidence, in pixel space.

    Args:
        iterations: The most descent steps (the paper's alpha).
        patience: Steps without progress after which a sample stops (beta).
        confidence: Probability of its class at which a sample stops (gamma).
        lr: Step size (lambda).
        cost: ``one_minus_p`` or ``neg_log_p``.
        start: Pixels start uniformly in ``[0, start]``; 0 is the paper's black image.
    """

    card = AttackCard(
        name="mi_face",
        title="MI-Face",
        modalities=("image",),
        year=2015,
        bib="mi_face",
        fidelity="paper",
        family="output matching",
        task="class",
        access=("white_box",),
    )

    def __init__(
        self,
        *,
        iterations: int = 5000,
        patience: int = 100,
        confidence: Positive = 0.99,
        lr: Positive = 0.1,
        cost: str = "one_minus_p",
        start: float = 0.1,
    ) -> None:
        if cost not in COSTS:
            raise UserError(f"Expected attack.cost to be {' or '.join(COSTS)}, but got '{cost}'.")
        if not 0 <= start <= 1:
            raise UserError(f"Expected attack.start to lie between 0 and 1, but got {start}.")
        if iterations < 1 or patience < 1:
            raise UserError(
                f"Expected attack.iterations and attack.patience to be at least 1, but got {iterations} and {patience}."
            )
        self.iterations = iterations
        self.patience = patience
        self.confidence = confidence
        self.lr = lr
        self.cost = cost
        self.start = start

    def reconstruct(
        self, view: WhiteBoxView, knowledge: Knowledge, goal: ClassGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Returns ``goal.samples`` images per class."""
        labels = goal.labels.to(view.device)
        draws = self.draws(view.device, "latents")
        x = self.start * torch.rand(len(labels), *view.spec.shape, generator=draws, device=view.device)
        best, best_cost = x, torch.full((len(x),), torch.inf, device=view.device)
        recent = torch.full((self.patience, len(x)), torch.inf, device=view.device)
        running = torch.ones(len(x), dtype=torch.bool, device=view.device)
        for step in self.steps(self.iterations + 1):
            x.requires_grad_(True)
            log_p = view.logits(x).log_softmax(1).gather(1, labels[:, None])[:, 0]
            cost = -log_p if self.cost == "neg_log_p" else 1 - log_p.exp()
            (gradient,) = torch.autograd.grad(cost.sum(), x)
            x, cost, p = x.detach(), cost.detach(), log_p.detach().exp()
            best, best_cost = take_best(best, best_cost, x, cost)
            self.keep(partial(Reconstruction, best, labels))
            running = running & (p < self.confidence) & (cost < recent.amax(0))
            recent[step % self.patience] = cost
            x = torch.where(running.reshape(-1, 1, 1, 1), (x - self.lr * gradient).clamp(0, 1), x)
            if step % self.patience == 0 and not bool(running.any()):
                break
        return Reconstruction(best, labels)
