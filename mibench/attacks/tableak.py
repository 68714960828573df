r"""TabLeak: records from their gradient, searched softly and pooled over an ensemble (Vero et al., ICML 2023).

A record has categories and numbers. Searched freely, it becomes something that matches the gradient and is no record.
The attacker holds the schema, the published bounds of numbers and the global model with its encoder. It searches soft
records

.. math:: \min_u 1 - \cos\big(\nabla_\theta L(\sigma(u), y), g\big), \qquad
    \sigma(u)_j = \begin{cases} \mathrm{softmax}(u_j) & \text{for the columns of one category} \\
    l_j + (h_j - l_j) \, \mathrm{sigmoid}(u_j) & \text{for a number} \end{cases}

with one cosine over all parameters together, from :math:`u \sim U(-1, 1)` in standardised units, by Adam on the sign
of the gradient (:class:`mibench.optim.input_space.Relaxed` has the order of scaling, softmax and sigmoid). Searches
from 30 starts, the members, are all kept. The member whose records, with every category decided, have the lowest
distance is the anchor. A gradient does not say in which order its records are, so each member's rows are matched to
the anchor's (Hungarian algorithm; the cost is the share of columns that differ, numbers by more than ``tolerance``
standard deviations). Then every soft column is the median over the members, and the strongest category of each group
is taken. How far members disagree says which columns to trust (:meth:`Pooled.uncertainty`): the entropy of a pooled
category over that of a uniform guess, and the standard deviation of a number. The two cannot be compared.

Labels are given, as in the paper's experiments, or counted from the gradient of the head's bias (after Geng et al.,
2021): :math:`n_c = B (\bar p_c - \partial L / \partial b_c)` with :math:`\bar p` of random records, rounded to add up.
Official code: https://github.com/eth-sri/tableak (its experiment 46). Deviations: kept of each member is the iterate of
the lowest distance, not the last; the encoder is the target's own, which standardises no one-hot columns unless it says
so. Pooling is not always ahead of the anchor, for which ``pooling=best`` stands (so too in the official code).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import GradientsView
from mibench.attacks.base import AttackCard, InstanceGoal, Knowledge, Reconstruction
from mibench.attacks.families.gradient_search import GradientSearch, message_labels
from mibench.optim.input_space import Relaxed
from mibench.optim.label_recovery import of_head
from mibench.optim.problems import Found, Sent
from mibench.optim.records import matched, right_columns
from mibench.optim.row_adam import Adam
from mibench.options import Count, NonNegative, Positive
from mibench.tasks import get_task

Pooling = Literal["median_softmax", "mean_softmax", "best"]

#: Random records by which the model's mean probabilities are estimated, where labels are counted.
RANDOM_RECORDS = 256


@dataclass(frozen=True)
class Pooled:
    """What the members of one message agree on.

    Attributes:
        space: The space of soft records.
        members: The members' soft records, rows in the order of the anchor's, shape ``(members, batch, width)``.
        soft: What was pooled of them, shape ``(batch, width)``.
    """

    space: Relaxed
    members: Tensor
    soft: Tensor

    @property
    def records(self) -> Tensor:
        """The records, shape ``(batch, columns)``: category codes, and numbers in their own units."""
        return self.space.read(self.soft)

    def uncertainty(self) -> Tensor:
        """Return how far members disagree on every column, shape ``(batch, columns)``.

        It is an entropy from 0 to 1 for a category, and for a number the standard deviation over members, in units of
        the encoder's. Only values of the same kind can be compared.
        """
        numbers = self.members.std(0, correction=0)
        spread = [numbers[:, place.start] for _, place in self.space.places()]
        entropy = self.space.entropy(self.soft)
        return torch.where(entropy.isnan(), torch.stack(spread, 1), entropy)


class Tableak(GradientSearch):
    """Soft records under one cosine distance, signed Adam, and an ensemble pooled by its median."""

    card = AttackCard(
        name="tableak",
        title="TabLeak",
        modalities=("tabular",),
        year=2023,
        code="https://github.com/eth-sri/tableak",
        fidelity="official",
        family="gradient matching",
        task="instance",
        access=("gradients",),
        uses=("labels", "local_training", "defense_loss"),
    )
    length = ("iterations",)

    ensemble: Count = 30
    """Members: searches per message, all of which are pooled."""
    iterations: Count = 1500
    """Steps of each."""
    lr: Positive = 0.06
    """Step size, in standardised units."""
    signed: bool = True
    """Whether Adam sees the gradient's sign."""
    softmax: bool = True
    """Whether categories pass a softmax."""
    sigmoid: bool = True
    """Whether numbers pass a sigmoid into their bounds."""
    pooling: Pooling = "median_softmax"
    """``median_softmax`` or ``mean_softmax`` over the members, or ``best``: the anchor alone."""
    tolerance: NonNegative = 0.319
    """Standard deviations up to which two numbers are the same where rows are matched."""
    label_rule: Literal["counts", "bias_sign", "lowest_rows", "bias_corrected"] = "counts"
    """How labels are read off where they are not granted."""

    def __post_init__(self) -> None:
        """Take the members for the restarts of the shared loop."""
        super().__post_init__()
        self.restarts = self.ensemble

    def reconstruct(
        self, view: GradientsView, knowledge: Knowledge, goal: InstanceGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the records and labels behind every message."""
        space, soft, problems = Relaxed.of(view, self.softmax, self.sigmoid), view.relaxed(), self.problems(view)
        sent, found = Sent(soft.messages, problems), Found(problems)
        labels = self.record_labels(view, soft, space, knowledge)
        self.keep(lambda: self.pooled_answer(view, goal, space, found, labels))

        def apart(rows: Tensor, inputs: Tensor) -> Tensor:
            return self.apart(soft, inputs, labels[problems.message(rows)], sent.of(rows))

        def objective(rows: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
            distance = apart(rows, space.to_inputs(u))
            return distance, distance

        start = self.noise(view, problems, "records", view.batch_size, space.width, draw=torch.rand)
        Adam(self.iterations, self.lr, self.signed).minimise(
            objective, [2 * start - 1], found, self.steps(self.iterations)
        )
        decided = torch.cat([
            apart(rows, space.encode(space.decode(found.values[0][rows]))).detach()
            for rows in problems.rows.split(problems.at_once)
        ])  # fmt: skip
        return self.pooled_answer(view, goal, space, found, labels, decided)

    def pooled_answer(
        self,
        view: GradientsView,
        goal: InstanceGoal,
        space: Relaxed,
        found: Found,
        labels: Tensor,
        decided: Tensor | None = None,
    ) -> Reconstruction:
        """Return what the members of every message agree on; missing are those for which no finite score was met.

        Args:
            view: What the attacker sees.
            goal: What is asked for.
            space: The space of soft records.
            found: The members.
            labels: Class ids, shape ``(messages, batch)``.
            decided: The distance of every member's decided records, by which anchors are chosen; None where the attack
                was stopped, and the distances of the soft records have to do.
        """
        if not found.values:
            return get_task(self.card.task).blank(goal, view.spec)
        (points,), scores = found.of_restarts()
        if decided is not None:
            scores = decided.reshape(scores.shape).where(scores.isfinite(), torch.inf)
        scores = scores.where(scores.isfinite(), torch.inf)
        records = torch.stack([
            self.pool(space, members, score).records for members, score in zip(points, scores, strict=True)
        ])  # fmt: skip
        loss = scores.amin(1).repeat_interleave(view.batch_size)
        target = goal.target.to(view.device)
        return Reconstruction(records.flatten(0, 1), target, labels.flatten(), loss.isfinite(), loss)

    def pool(self, space: Relaxed, points: Tensor, scores: Tensor) -> Pooled:
        """Return what the members of one message agree on.

        Args:
            space: The space of soft records.
            points: The members' points, shape ``(members, batch, width)``.
            scores: The distance of each, shape ``(members,)``; members of no finite one are left out, all but one.
        """
        there = scores.isfinite()
        anchor = int(scores.where(there, torch.inf).argmin())
        there[anchor] = True
        soft, records = space.to_inputs(points), space.decode(points)
        members = torch.stack([
            soft[member][self.order(space, records[anchor], records[member])]
            for member in range(len(points))
            if bool(there[member])
        ])  # fmt: skip
        pooled = {
            "median_softmax": lambda: members.median(0).values,
            "mean_softmax": lambda: members.mean(0),
            "best": lambda: soft[anchor],
        }
        return Pooled(space, members, pooled[self.pooling]())

    def order(self, space: Relaxed, anchor: Tensor, member: Tensor) -> Tensor:
        """Return which of a member's records ``(batch, columns)`` is each of the anchor's, shape ``(batch,)``."""
        margin = self.tolerance * torch.stack([space.std[place.start] for _, place in space.places()])
        wrong = ~right_columns(space.columns, member[None], anchor[:, None], margin)
        return matched(wrong.double().mean(2))

    def record_labels(self, view: GradientsView, soft: GradientsView, space: Relaxed, knowledge: Knowledge) -> Tensor:
        """Return the class ids behind the messages, granted, counted or read off, shape ``(messages, batch)``."""
        if knowledge.granted("labels") or self.label_rule != "counts":
            return message_labels(view, knowledge, self.label_rule)
        points = (
            2 * torch.rand(RANDOM_RECORDS, space.width, generator=self.draws(view.device, "labels"), device=view.device)
            - 1
        )
        with torch.no_grad():
            likely = soft.model(space.to_inputs(points)).softmax(1).mean(0)
        return torch.stack([counted_labels(likely, one, view.batch_size) for one in view.as_gradients()])


def counted_labels(likely: Tensor, message: Mapping[str, Tensor], batch_size: int) -> Tensor:
    """Return the class ids of a batch from the gradient of the head's bias, ascending, shape ``(batch,)``.

    Args:
        likely: The model's mean probabilities, shape ``(classes,)``.
        message: The gradient by parameter name.
        batch_size: Examples behind it.
    """
    bias = of_head(message, "head.bias", "lowest_rows")
    wanted = (batch_size * (likely - bias)).nan_to_num(nan=0.0).clamp(0, batch_size)
    counts = wanted.floor()
    while int(counts.sum()) > batch_size:
        counts[(counts - wanted).where(counts > 0, -torch.inf).argmax()] -= 1
    while int(counts.sum()) < batch_size:
        counts[(wanted - counts).argmax()] += 1
    return torch.arange(len(counts), device=counts.device).repeat_interleave(counts.long())
