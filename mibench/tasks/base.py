"""The contract of a task, and the types that travel between attack, task and metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population, Split
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.pictures import SheetRow
from mibench.precision import widened


@dataclass(frozen=True)
class Reconstruction:
    """What an attack returns, for every task.

    Attributes:
        values: Inputs ``(N, ...)`` (class, instance, completion, sequence), category codes ``(N,)`` (attribute) or how
            sure the attack is of every link ``(N,)`` (edges).
        target: Which target each entry belongs to, shape ``(N,)``: a class id, the index of a message, of a masked
            image, of a record or of a pair of nodes.
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
        """Return the same on the CPU, detached, in float32 where a network made it in bfloat16."""
        return Reconstruction(**{name: widened(tensor.detach()).cpu() for name, tensor in self.tensors().items()})

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
    """An evaluation model: another architecture than the victim's, trained on raw private data, or a face embedding.

    Attributes:
        name: Id of its architecture, or of the embedding.
        model: The network, in evaluation mode.
        accuracy: Its accuracy on the private test data.
        votes: Whether it takes part in the vote: it is at least as accurate as the undefended target, or none is.
        seconds: What all of its trainings took that were tried, or the embedding of the real images.
        steps: Optimiser steps of the training that was taken; 0 of an embedding.
    """

    name: str
    model: Classifier
    accuracy: float
    votes: bool = True
    seconds: float = 0.0
    steps: int = 0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What metrics compare with; attacks never hold one.

    Attributes:
        correct: Whether the defended victim is right on each private test example, shape ``(n,)``.
        chance: The accuracy of always naming the most frequent private class.
        facts: What the defense reports of itself (epsilon, delta, accountant ...).
        evaluators: Evaluation models, empty for tasks that need none.
        unknown: Why nobody knows what was reconstructed; empty where it is known.
        courses: What metrics asked to be trained beside the cell, by metric: whether a model is right on each private
            test example, with the defense and without it; or why there is no such training.
    """

    correct: Tensor
    chance: float
    facts: Mapping[str, float | str] = field(default_factory=dict)
    evaluators: Sequence[Evaluator] = ()
    unknown: str = ""
    courses: Mapping[str, tuple[Tensor, Tensor] | str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How much is attacked: the same numbers for every attack of a task.

    Attributes:
        name: ``smoke``, ``standard`` or ``paper``.
        targets: Classes (task class), client updates (instance, sequence) or masked images (completion) that are
            attacked.
        samples: Reconstructions per class.
        records: Partial records that are completed (task attribute), linked pairs of nodes to be told (edges).
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
        access: What the cell grants of the victim.
        known_columns: Columns of a record that the attacker knows; None for all but the sensitive one.
        masked_image: Which part of an image is hidden (task completion).
    """

    split: Split
    budget: Budget
    seed: int
    batch_size: int = 1
    messages: int = 0
    access: str = ""
    known_columns: Sequence[str] | None = None
    masked_image: str = "centre"


@dataclass(frozen=True, kw_only=True)
class Case(Assignment):
    """Everything of a cell from which truth and control are made: data alone; it stays on mibench's side.

    Attributes:
        secret: What lies behind the observation (the clients' batches), None where there is nothing.
        utility: Fields of :class:`Truth` that every task shares.
        victim: The victim's module, for nulls that ask it and metrics that audit the evaluation models with it; None
            where there is none.
    """

    secret: Examples | None
    utility: Mapping[str, Any]
    victim: Classifier | None = None


@dataclass(frozen=True)
class Sheet:
    """What a person looks at first, of one cell.

    Attributes:
        headings: Of every column.
        rows: Of every target what stands in the columns: pictures ``(n, C, H, W)`` in [0, 1], a text, or nothing.
    """

    headings: Sequence[str]
    rows: Sequence[SheetRow]


#: Rows of a sheet, and entries of a target that stand in one.
TARGETS, PER_TARGET = 10, 4


GoalT = TypeVar("GoalT")
TruthT = TypeVar("TruthT", bound=Truth)


class Task(ABC, Generic[GoalT, TruthT]):
    """One task: what an attack is asked for, what its answer must look like, and what it is compared with.

    Attributes:
        name: The task, as cards name it.
        pictured: The modalities of data of which its cells have a picture sheet.
        headline: The number by which its attacks are compared first: metric, variant and evaluator; a literal, because
            it is read without torch.
        headlines: Pairs of a modality and the number that takes the headline's place there; a literal too.
        judged: Whether its truth holds evaluation models.
        retrains: Whether its control is the same attack on a victim of other data, which ``control=none`` leaves out.
        meets_strangers: Whether the same attack is also run on data that the victim was not trained on.
    """

    name: ClassVar[str]
    pictured: ClassVar[tuple[str, ...]] = ()
    headline: ClassVar[tuple[str, str, str]]
    headlines: ClassVar[tuple[tuple[str, tuple[str, str, str]], ...]] = ()
    judged: ClassVar[bool] = False
    retrains: ClassVar[bool] = False
    meets_strangers: ClassVar[bool] = False

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

    def known(self, assignment: Assignment) -> tuple[str, ...]:
        """Return what the goal tells beyond what its task is, in the words of a row's column ``knowledge``."""
        return ()

    @abstractmethod
    def blank(self, goal: GoalT, spec: InputSpec) -> Reconstruction:
        """Return the answer of an attack that has nothing: every entry missing."""

    @abstractmethod
    def truth(self, case: Case, goal: GoalT) -> TruthT:
        """Return what the metrics compare with."""

    @abstractmethod
    def control(
        self, case: Case, goal: GoalT, knowledge: Knowledge, result: Reconstruction
    ) -> Reconstruction | Population | None:
        """Return what comes out without the leak, or which population's victim the same attack is to be run on.

        None where the dataset allows no control.
        """

    def controlled(self, other: Reconstruction, case: Case, result: Reconstruction) -> Reconstruction:
        """Return as a control what the attack made of the population that :meth:`control` named."""
        return other

    def nulls(self, case: Case, goal: GoalT, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return what can be answered without the leak that an attack claims, by name: floors under every attack.

        A null is made on mibench's side: it asks ``case.victim`` directly, charges no ledger, and no attack sees it.
        One that lacks what it needs (a victim, public data) is left out.
        """
        return {}

    def strangers(self, case: Case, goal: GoalT) -> tuple[GoalT, TruthT] | None:
        """Return the same goal about data that the victim was not trained on, target by target, with its truth.

        The cell runs the same attack on it, as the null ``non_members``: what a model gives away of people whether or
        not it was trained on them is no leak of its training data. None where the task or the data have none.
        """
        return None

    @abstractmethod
    def units(self, case: Case, goal: GoalT) -> Sequence[str]:
        """Return the identity of every distinct target, in their order: a person, a record, a client.

        It is the same in cells of other seeds and splits wherever the target is the same.
        """

    def sheet(
        self,
        spec: InputSpec,
        units: Sequence[str],
        truth: TruthT,
        result: Reconstruction,
        control: Reconstruction | None,
    ) -> Sheet | None:
        """Return what is drawn of a cell; None where there is nothing to look at."""
        return None

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
        self.check_values(result.values[~result.missing], goal, spec)

    def check_values(self, values: Tensor, goal: GoalT, spec: InputSpec) -> None:
        """Refuse values, those that are not missing, which are no inputs.

        Raises:
            ValueError: Saying what is wrong.
        """
        spec.check(values)
