"""The contract of a task, and the types that travel between attack, task and metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population, Split
from mibench.knowledge import Knowledge
from mibench.model import Classifier


@dataclass(frozen=True)
class Reconstruction:
    """What an attack returns, for every task.

    Attributes:
        values: Images ``(N, C, H, W)`` in [0, 1] (class, instance, completion) or category codes ``(N,)`` (attribute).
        target: Which target each entry belongs to, shape ``(N,)``: a class id, the index of a message, of a masked
            image or of a record.
        labels: The class ids that an attack recovered with the inputs, shape ``(N,)``; None where the task or the
            attack has no such answer.
        valid: False where the attack has nothing (budget spent, query refused): such entries count as failures.
        loss: The attack's own final objective for each entry, shape ``(N,)``; None where it has none.
    """

    values: Tensor
    target: Tensor
    labels: Tensor | None = None
    valid: Tensor | None = None
    loss: Tensor | None = None

    def __len__(self) -> int:
        return len(self.values)

    @property
    def missing(self) -> Tensor:
        """True where there is no result, shape ``(N,)``."""
        if self.valid is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.values.device)
        return ~self.valid

    def cpu(self) -> Reconstruction:
        """Return the same on the CPU, detached."""
        return Reconstruction(**{name: tensor.detach().cpu() for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors that are there, by name, for the store."""
        named = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def reordered(self, order: Tensor) -> Reconstruction:
        """Return the entries in another order, with the targets as they stand."""
        moved = {name: tensor[order] for name, tensor in self.tensors().items() if name != "target"}
        return Reconstruction(target=self.target, **moved)


@dataclass(frozen=True)
class Evaluator:
    """An evaluation model: trained on raw private data with another architecture and seed than the victim's.

    Attributes:
        name: Id of its architecture.
        model: The network, in evaluation mode.
        accuracy: Its accuracy on the private test data.
    """

    name: str
    model: Classifier
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What metrics compare with; attacks never hold one.

    Attributes:
        correct: Whether the defended victim is right on each private test example, shape ``(n,)``.
        chance: The accuracy of always naming the most frequent private class.
        facts: What the defense reports of itself (epsilon, delta, accountant ...).
        evaluators: Evaluation models, empty for tasks that need none.
        unknown: Why nobody knows what was reconstructed; empty where it is known.
    """

    correct: Tensor
    chance: float
    facts: Mapping[str, float | str] = field(default_factory=dict)
    evaluators: Sequence[Evaluator] = ()
    unknown: str = ""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is attacked: the same numbers for every attack of a task.

    Attributes:
        name: ``smoke``, ``standard`` or ``paper``.
        targets: Classes (task class), client updates (instance) or masked images (completion) that are attacked.
        samples: Reconstructions per class.
        records: Partial records that are completed (task attribute).
    """

    name: str
    targets: int
    samples: int
    records: int


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What of a cell decides the goal; it stays on mibench's side.

    Attributes:
        split: The dataset.
        budget: How much is attacked.
        seed: The cell's seed.
        batch_size: Inputs behind one observed message (settings that send any).
        messages: Number of observed messages; 0 where the budget decides.
        known_columns: Columns of a record that the attacker knows; None for all but the sensitive one.
        masked_image: Which part of an image is hidden (task completion).
    """

    split: Split
    budget: Budget
    seed: int
    batch_size: int = 1
    messages: int = 0
    known_columns: Sequence[str] | None = None
    masked_image: str = "centre"


@dataclass(frozen=True, kw_only=True)
class Case(Assignment):
    """Everything of a cell from which truth and control are made; it stays on mibench's side.

    Attributes:
        secret: What lies behind the observation (the clients' batches), None where there is nothing.
        utility: Fields of :class:`Truth` that every task shares.
        evaluators: Builds the evaluation models when a task asks.
        attack_held_out: Runs the same attack on a control victim trained on held-out data.
        victim: Hands out the victim's module, for metrics that audit the evaluation models with it.
        trained: Trains the global model of a federated setting, with other options of the setting and with or without
            the defense, and returns whether it is right on each private test example; None in other settings.
    """

    secret: Examples | None
    utility: Mapping[str, Any]
    evaluators: Callable[[], Sequence[Evaluator]]
    attack_held_out: Callable[[Population], Reconstruction]
    victim: Callable[[], Classifier]
    trained: Callable[[Mapping[str, Any], bool], Tensor] | None = None


GoalT = TypeVar("GoalT")
TruthT = TypeVar("TruthT", bound=Truth)


class Task(ABC, Generic[GoalT, TruthT]):
    """One task: what an attack is asked for, what its answer must look like, and what it is compared with."""

    name: str

    @abstractmethod
    def goal(self, assignment: Assignment) -> GoalT:
        """Return what the attack is asked for; holds nothing the threat model does not grant."""

    def messages(self, goal: GoalT) -> int:
        """Return how many independent messages of the victim the goal is about; 0 where none are sent."""
        return 0

    def held(self, goal: GoalT) -> Sequence[str]:
        """Return what identifies the private data that the goal itself shows; nothing in most tasks."""
        return ()

    def labels(self, case: Case) -> Tensor | None:
        """Return the class ids that ``knowledge.labels`` grants; None where the task has none."""
        return None if case.secret is None else case.secret.y

    @abstractmethod
    def blank(self, goal: GoalT, spec: InputSpec) -> Reconstruction:
        """Return the answer of an attack that has nothing: every entry missing."""

    @abstractmethod
    def truth(self, case: Case, goal: GoalT) -> TruthT:
        """Return what the metrics compare with."""

    @abstractmethod
    def control(self, case: Case, goal: GoalT, knowledge: Knowledge, result: Reconstruction) -> Reconstruction | None:
        """Return what comes out without the leak; None where the dataset allows no control."""

    def align(self, result: Reconstruction, truth: TruthT) -> Reconstruction:
        """Return ``result`` in the order of the truth, one to one; the identity where the order is given."""
        return result

    def check(self, result: Reconstruction, goal: GoalT, spec: InputSpec) -> None:
        """Refuse an answer of the wrong shape or range.

        Raises:
            ValueError: If the attack returned something that its task does not allow.
        """
        expected = self.blank(goal, spec)
        if result.values.shape != expected.values.shape:
            raise ValueError(
                f"Expected a reconstruction of shape {tuple(expected.values.shape)}, "
                f"but got {tuple(result.values.shape)}."
            )
        if not torch.equal(result.target.cpu(), expected.target.cpu()):
            raise ValueError("Expected the reconstruction's targets to be those of the goal, in its order.")
        values = result.values[~result.missing]
        if not bool(torch.isfinite(values).all()):
            raise ValueError("Expected a finite reconstruction, but it holds NaN or infinite values.")
        if spec.modality == "image" and values.is_floating_point() and len(values):
            low, high = float(values.min()), float(values.max())
            if low < 0 or high > 1:
                raise ValueError(f"Expected images in [0, 1], but got values from {low:.3g} to {high:.3g}.")
