"""Task ``instance``: the very inputs behind a client's update or a query, matched one to one.

Control: the same attack on another client's update, scored on this client's inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.tasks.base import Assignment, Case, Reconstruction, Task, Truth


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
        y: Their class ids.
        target: The message of each.
        private: What the victim was trained and tested on: the inputs and all they could be mistaken for.
        public: The attacker's data, from which an input can be guessed without any message; None where there are none.
        victim: Hands out the victim's module.
    """

    x: Tensor
    y: Tensor
    target: Tensor
    private: Population | None = None
    public: Examples | None = None
    victim: Callable[[], Classifier] | None = None


class InstanceTask(Task[InstanceGoal, InstanceTruth]):
    """Instance-level reconstruction."""

    name = "instance"

    def goal(self, assignment: Assignment) -> InstanceGoal:
        """Returns as many messages as the budget has targets, at least two so that each has a control."""
        return InstanceGoal(max(2, assignment.budget.targets), assignment.batch_size)

    def messages(self, goal: InstanceGoal) -> int:
        """Returns the number of observed messages."""
        return goal.messages

    def blank(self, goal: InstanceGoal, spec: InputSpec) -> Reconstruction:
        """Returns mid-grey inputs and class 0, all missing."""
        target = goal.target
        return Reconstruction(
            torch.full((len(target), *spec.shape), 0.5),
            target,
            labels=torch.zeros(len(target), dtype=torch.long),
            valid=torch.zeros(len(target), dtype=torch.bool),
        )

    def truth(self, case: Case, goal: InstanceGoal) -> InstanceTruth:
        """Returns the clients' batches, with the data they are part of, the public data and the victim."""
        assert case.secret is not None, "an instance cell's setting gives the secret behind its observation"
        return InstanceTruth(
            x=case.secret.x,
            y=case.secret.y,
            target=goal.target,
            private=case.split.private,
            public=case.split.public,
            victim=case.victim,
            **case.utility,
        )

    def control(self, case: Case, goal: InstanceGoal, knowledge: Knowledge, result: Reconstruction) -> Reconstruction:
        """Returns what the attack made of the *next* client's update, put in this client's place."""

        def next_client(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.roll(-goal.batch_size, dims=0)

        values = next_client(result.values)
        assert values is not None
        return Reconstruction(values, result.target, next_client(result.labels), next_client(result.valid))

    def align(self, result: Reconstruction, truth: InstanceTruth) -> Reconstruction:
        """Matches the inputs of each message to the true ones by least total squared error (Hungarian algorithm)."""
        from scipy.optimize import linear_sum_assignment

        order = torch.arange(len(result))
        for message in truth.target.unique():
            rows = torch.nonzero(truth.target == message).flatten()
            cost = torch.cdist(truth.x[rows].flatten(1).double(), result.values[rows].flatten(1).double()) ** 2
            _, columns = linear_sum_assignment(cost.numpy())
            order[rows] = rows[torch.from_numpy(columns)]
        return Reconstruction(
            result.values[order],
            result.target,
            None if result.labels is None else result.labels[order],
            None if result.valid is None else result.valid[order],
        )
