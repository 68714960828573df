"""What gradient inversions share: one label rule, one distance, rows of messages and starts, and the best of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field

import torch
from torch import Tensor

from mibench.access import GradientsView
from mibench.attacks.base import Attack, InstanceGoal, Knowledge, Reconstruction
from mibench.optim.gradient_distance import DISTANCES, DistanceName, on_sent
from mibench.optim.input_space import InputSpace
from mibench.optim.label_recovery import LABEL_RULES
from mibench.optim.problems import Found, Problems, at_once
from mibench.tasks import get_task


class GradientSearch(Attack[GradientsView, InstanceGoal]):
    """An instance attack that searches inputs whose update is the one that was sent, from several starts per message.

    Inputs are searched in the space of the model's own inputs (:class:`mibench.optim.input_space.Pixels`), or in a
    space of a generator. What a method lets the user choose of these attributes it declares as an option.

    Attributes:
        restarts: Starts per message; the one of the lowest score is returned.
        label_rule: How labels are read off a message where they are not granted; None where they are searched.
        distance: Distance of gradients.
        mask_sent: Whether only entries that were sent as other than zero are compared.
    """

    restarts: int = field(init=False, default=1)
    label_rule: str | None = field(init=False, default=None)
    distance: DistanceName = field(init=False, default="cosine")
    mask_sent: bool = field(init=False, default=False)

    def labels(self, view: GradientsView, knowledge: Knowledge) -> Tensor:
        """Return the class ids behind the messages, shape ``(messages, batch)``."""
        return message_labels(view, knowledge, self.label_rule)

    def problems(self, view: GradientsView) -> Problems:
        """Return the rows of the search."""
        return Problems(len(view.messages), self.restarts, at_once(view))

    def noise(
        self,
        view: GradientsView,
        problems: Problems,
        what: str,
        *shape: int,
        draw: Callable[..., Tensor] = torch.randn,
    ) -> Tensor:
        """Return a start for every problem, each from a draw of its own, shape ``(problems, ...)``.

        It is standard-normal unless ``draw`` says otherwise (``torch.rand``).
        """
        return torch.stack([
            draw(shape, generator=self.draws(view.device, what, message, restart), device=view.device)
            for message in range(problems.messages)
            for restart in range(problems.restarts)
        ])  # fmt: skip

    def apart(self, view: GradientsView, x: Tensor, y: Tensor, sent: dict[str, Tensor]) -> Tensor:
        """Return how far what clients of ``(x, y)`` would send is from what was sent, of every problem, shape ``(n,)``.

        Args:
            view: Computes the updates: the attack's own, or for relaxed inputs its :meth:`GradientsView.relaxed`.
            x: Inputs, shape ``(n, batch, ...)``: images, or what the relaxed view takes.
            y: Class ids ``(n, batch)`` or distributions ``(n, batch, classes)``.
            sent: The message of every problem.
        """
        distance = on_sent(DISTANCES[self.distance]) if self.mask_sent else DISTANCES[self.distance]
        return distance(view.updates(x, y), sent)

    def answer(
        self,
        view: GradientsView,
        goal: InstanceGoal,
        found: Found,
        labels: Tensor | None,
        space: InputSpace | None = None,
    ) -> Reconstruction:
        """Return the best start of every message; those for which no finite score was met are missing.

        The first variable found is the points of ``space``, or the inputs where it is None; where ``labels`` is None
        the second is the labels' logits.
        """
        if not found.values:
            return get_task(self.card.task).blank(goal, view.spec)
        values, scores = found.of_messages()
        inputs = (view.spec.boxed(values[0]) if space is None else space.decode(values[0])).flatten(0, 1)
        chosen = values[1].argmax(-1) if labels is None else labels
        loss = scores.repeat_interleave(view.batch_size)
        return Reconstruction(inputs, goal.target.to(view.device), chosen.flatten(), loss.isfinite(), loss)


def message_labels(view: GradientsView, knowledge: Knowledge, rule: str | None) -> Tensor:
    """Return the class ids behind the messages, granted or read off by ``rule``, shape ``(messages, batch)``."""
    if knowledge.granted("labels"):
        granted: Tensor = knowledge.fact("labels")
        return granted.reshape(-1, view.batch_size).to(view.device)
    assert rule is not None, "labels are searched where no rule reads them off"
    return torch.stack([LABEL_RULES[rule](message, view.batch_size) for message in view.as_gradients()])
