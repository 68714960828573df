"""Task ``instance``: the very inputs behind a client's update, its features or an observed answer, matched one to one.

Control: the same attack on another client's update, scored on this client's inputs. Nulls: guesses that need no
message, which are the mean of the public inputs, or records drawn from public ones; behind an answer, which names a
class, also the mean of other inputs of that class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.optim.records import matched, unlike
from mibench.pictures import SheetRow, as_pictures
from mibench.seeding import derive, generator
from mibench.tasks.base import PER_TARGET, TARGETS, Assignment, Case, Reconstruction, Sheet, Task, Truth

#: What stands in the rows of a captured update without truth.
UNKNOWN = "Nobody said which inputs are behind the update, so there is nothing to compare with; set dataset.truth."


@dataclass(frozen=True)
class InstanceGoal:
    """The inputs to reconstruct.

    Attributes:
        messages: Number of independent observations (client updates).
        batch_size: Inputs behind each.
    """

    messages: int
    batch_size: int

    @property
    def target(self) -> Tensor:
        """The message that every wanted input belongs to, shape ``(messages * batch_size,)``."""
        return torch.arange(self.messages).repeat_interleave(self.batch_size)


@dataclass(frozen=True, kw_only=True)
class InstanceTruth(Truth):
    """The inputs behind the messages.

    Attributes:
        x: Inputs of shape ``(messages * batch_size, ...)``, those of one message side by side.
        y: Their class ids; negative where nobody knows them.
        target: The message of each.
        private: What the victim was trained and tested on: the inputs and all they could be mistaken for.
        public: The attacker's data, from which an input can be guessed without any message; None where there are none.
        victim: The victim's module; None where there is none.
        columns: The schema of records; empty for other inputs.
        spread: Standard deviation of every column among the private training records, or as a captured update says,
            shape ``(columns,)``; None where nobody said it, and for other inputs.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    private: Population | None = None
    public: Examples | None = None
    victim: Classifier | None = None
    columns: tuple[Column, ...] = ()
    spread: Tensor | None = None


def public_mean(split: Split) -> Tensor | None:
    """Return the mean of the public inputs, shape ``spec.shape``; None without any, or where they have no range."""
    if split.public is None or not len(split.public) or not split.spec.ranged:
        return None
    return split.spec.boxed(split.public.x.mean(0))


def class_means(split: Split, y: Tensor) -> Tensor:
    """Return for class ids ``(N,)`` the mean of the class's private test inputs, shape ``(N, *spec.shape)``.

    Of a class without any it is the mean of all private test inputs.
    """
    test = split.private.test
    means = {label: test.x[test.y == label].mean(0) for label in y.unique().tolist() if (test.y == label).any()}
    return split.spec.boxed(torch.stack([means.get(label, test.x.mean(0)) for label in y.tolist()]))


class InstanceTask(Task[InstanceGoal, InstanceTruth]):
    """Instance-level reconstruction."""

    name = "instance"
    pictured: ClassVar[tuple[str, ...]] = ("image", "audio")
    headline = ("psnr", "", "")
    headlines = (("tabular", ("tolerance_accuracy", "", "")),)

    def goal(self, assignment: Assignment) -> InstanceGoal:
        """Return as many messages as the budget has targets, at least two so that each has a control."""
        return InstanceGoal(assignment.messages or max(2, assignment.budget.targets), assignment.batch_size)

    def messages(self, goal: InstanceGoal) -> int:
        """Return the number of observed messages."""
        return goal.messages

    def blank(self, goal: InstanceGoal, spec: InputSpec) -> Reconstruction:
        """Return blank inputs and class 0, all missing."""
        target = goal.target
        return Reconstruction(
            spec.blank(len(target)),
            target,
            labels=torch.zeros(len(target), dtype=torch.long),
            valid=torch.zeros(len(target), dtype=torch.bool),
        )

    def truth(self, case: Case, goal: InstanceGoal) -> InstanceTruth:
        """Return the clients' batches, with the data they are part of, the public data and the victim."""
        nothing = self.blank(goal, case.split.spec)
        assert nothing.labels is not None
        columns, train, captured = case.split.spec.columns, case.split.private.train.x, case.split.captured
        spread = train.double().std(0) if columns and len(train) > 1 else None
        return InstanceTruth(
            x=nothing.values if case.secret is None else case.secret.x,
            y=nothing.labels - 1 if case.secret is None else case.secret.y,
            target=goal.target,
            unknown=UNKNOWN if case.secret is None else "",
            private=case.split.private,
            public=case.split.public,
            victim=case.victim,
            columns=columns,
            spread=spread if captured is None else captured.spread,
            **case.utility,
        )

    def control(
        self, case: Case, goal: InstanceGoal, knowledge: Knowledge, result: Reconstruction
    ) -> Reconstruction | None:
        """Return what the attack made of the *next* client's update, put in this client's place; None of one alone."""
        if goal.messages < 2:
            return None
        return result.reordered(torch.arange(len(result)).roll(-goal.batch_size))

    def nulls(self, case: Case, goal: InstanceGoal, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return guesses that need no message; none without public data.

        For inputs with a range it is their public mean, for every input the same (``public_mean``), and behind an
        answer, of which the class is known anyhow, the mean of the private test inputs of the input's class
        (``class_mean``). Of records every column is drawn for itself and every record anew, three times: uniformly over
        categories and between the bounds of numbers (``uniform``), with categories as frequent as among public records
        (``cat_empirical``), and with numbers from public records too (``all_empirical``).
        """
        columns, public, mean = case.split.spec.columns, case.split.public, public_mean(case.split)
        found, secret = {}, case.secret if case.access == "scores" else None
        if mean is not None:
            found["public_mean"] = Reconstruction(mean.expand(len(goal.target), *mean.shape).clone(), goal.target)
        if secret is not None and case.split.spec.ranged and len(case.split.private.test):
            found["class_mean"] = Reconstruction(class_means(case.split, secret.y), goal.target)
        if found:
            return found
        if not columns or public is None or not len(public):
            return {}
        uniform, frequent = torch.empty(2, len(goal.target), len(columns), dtype=public.x.dtype).unbind()
        draws = generator(derive(case.seed, "guessed records"))
        for position, column in enumerate(columns):
            known = public.x[:, position]
            frequent[:, position] = known[torch.randint(len(known), (len(goal.target),), generator=draws)]
            drawn = torch.rand(len(goal.target), generator=draws)
            if column.categorical:
                uniform[:, position] = (drawn * len(column.values)).floor()
            else:
                low = float(known.min()) if column.low is None else column.low
                high = float(known.max()) if column.high is None else column.high
                uniform[:, position] = low + (high - low) * drawn
        categorical = torch.tensor([column.categorical for column in columns])
        guesses = {
            "uniform": uniform,
            "cat_empirical": torch.where(categorical, frequent, uniform),
            "all_empirical": frequent,
        }
        return {name: Reconstruction(values, goal.target) for name, values in guesses.items()}

    def units(self, case: Case, goal: InstanceGoal) -> Sequence[str]:
        """Return the number of every client, or of every observed answer."""
        return [f"{'answer' if case.access == 'scores' else 'client'} {number}" for number in range(goal.messages)]

    def sheet(
        self,
        spec: InputSpec,
        units: Sequence[str],
        truth: InstanceTruth,
        result: Reconstruction,
        control: Reconstruction | None,
    ) -> Sheet | None:
        """Return of every client its inputs, what was made of its message, and of the next one's."""
        if not spec.ranged:
            return None
        made, other = result.values, None if control is None else control.values
        columns = {"private": truth.x, "recovered": made, "control": other}
        if truth.unknown:
            columns = {"recovered": made}
        shown = torch.arange(len(result))[: TARGETS * PER_TARGET].split(PER_TARGET if len(result) > TARGETS else 1)
        rows = [
            SheetRow(
                units[int(result.target[part[0]])],
                [None if one is None else as_pictures(one[part], spec) for one in columns.values()],
            )
            for part in shown
        ]
        return Sheet(list(columns), rows)

    def cost(self, truth: InstanceTruth, made: Tensor, rows: Tensor) -> Tensor:
        """Return how unlike each true input of a message and each answer are, shape ``(n, n)``.

        It is the squared error; of records the share of categories that differ, and scaled differences of numbers
        (:func:`mibench.optim.records.unlike`).

        Args:
            truth: What is true.
            made: The answers, shape ``(n, ...)``.
            rows: The rows of the truth that belong to the message, shape ``(n,)``.
        """
        if truth.spread is not None:
            return unlike(truth.columns, made[None].double(), truth.x[rows][:, None].double(), truth.spread)
        return torch.cdist(truth.x[rows].flatten(1).double(), made.flatten(1).double()) ** 2

    def align(self, result: Reconstruction, truth: InstanceTruth) -> Reconstruction:
        """Match the inputs of each message to the true ones at the least total cost (Hungarian algorithm)."""
        if truth.unknown:
            return result
        order = torch.arange(len(result))
        for message in truth.target.unique():
            rows = torch.nonzero(truth.target == message).flatten()
            order[rows] = rows[matched(self.cost(truth, result.values[rows], rows))]
        return result.reordered(order)
