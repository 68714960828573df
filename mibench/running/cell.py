"""The story of one cell, in the order in which data flow.

Dataset -> setting and target under the defense (:mod:`mibench.running.stage`) -> view at the attack's access ->
reconstruction, stored (:mod:`mibench.running.adversary`) -> metrics beside a control -> rows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mibench.data import Population
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import NAN, Score, facts_as_scores, null_scores, score
from mibench.leaderboard.shards import write_shard
from mibench.metrics.base import Metric
from mibench.planning.plan import Plan, folder
from mibench.running.adversary import Adversary
from mibench.running.notes import notes_of
from mibench.running.stage import chance_of
from mibench.settings.victim import TRAINING_SECONDS
from mibench.tasks.base import Case, Reconstruction, Truth
from mibench.training import is_correct

log = logging.getLogger("mibench")


@dataclass(frozen=True)
class Outcome:
    """What a finished cell leaves.

    Attributes:
        scores: All numbers.
        shard: Path of the rows.
        picture: Path of the picture sheet; None where there is nothing to draw.
        notes: Sentences a reader of the numbers must know.
        curve: The victim's training loss as pairs (step, loss); empty where none was recorded.
    """

    scores: Sequence[Score]
    shard: Path
    picture: Path | None
    notes: Sequence[str]
    curve: Sequence[tuple[int, float]] = ()


class Cell(Adversary):
    """One cell, each step done once and when it is needed.

    Args:
        plan: The planned cell, found compatible.
        rebuild: Whether the attack is run again although its reconstruction is stored.
        stored_only: Whether a reconstruction that is not stored is an error instead of a reason to attack.

    Raises:
        UserError: If an option of a component is wrong.
    """

    def __init__(self, plan: Plan, rebuild: bool = False, stored_only: bool = False) -> None:
        super().__init__(plan, rebuild, stored_only)
        self.metrics: list[Metric[Any]] = [part.make() for part in plan.metrics()]

    def run(self) -> Outcome:
        """Run the cell to its rows, and write them and the picture sheet."""
        scores = self.scores()
        shard = write_shard(folder(self.plan, "results"), self.plan.cell_id, self.rows(scores))
        return Outcome(scores, shard, self.draw(), self.notes, self.victim.facts.get("curve", ()))

    # Truth, control and metrics

    @cached_property
    def full_case(self) -> Case:
        """The case with the secret and the victim's utility."""
        test = self.split.private.test
        correct, chance = torch.zeros(0, dtype=torch.bool), NAN
        if len(test):
            correct = is_correct(self.victim.predict_proba, test.to(self.workshop.device))
            chance = chance_of(test)
        utility = {
            "correct": correct,
            "chance": chance,
            "facts": self.victim.reported,
            "evaluators": self.evaluators if self.task.judged else (),
            "courses": self.courses(),
        }
        return self.case(self.observation.secret, utility, self.victim.model)

    def courses(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return what metrics ask to be trained beside the cell, where there are clients to train it."""
        if "update" not in self.setting.card.training_hooks:
            return {}
        return {
            one.card.name: (self.federated_answers(one.course, True), self.federated_answers(one.course, False))
            for one in self.metrics
            if one.course
        }

    @cached_property
    def truth(self) -> Truth:
        """What the metrics compare with."""
        truth: Truth = self.task.truth(self.full_case, self.goal)
        return truth

    @cached_property
    def control(self) -> Reconstruction | None:
        """What comes out without the leak."""
        result = self.result.reconstruction
        found = self.task.control(self.full_case, self.goal, self.knowledge, result)
        if isinstance(found, Population):
            return self.task.controlled(self.attack_held_out(found), self.full_case, result)
        return found

    @cached_property
    def aligned(self) -> tuple[Reconstruction, Reconstruction | None]:
        """Reconstruction and control in the order of the truth."""
        result, control = self.result.reconstruction, self.control
        return (
            self.task.align(result, self.truth),
            None if control is None else self.task.align(control, self.truth),
        )

    def scores(self) -> list[Score]:
        """Return the numbers of the stored reconstruction."""
        result, control = self.aligned
        numbers = []
        for metric in self.metrics:
            numbers += score(metric, result, control, self.truth, self.seed)
        for name, null in self.task.nulls(self.full_case, self.goal, self.knowledge).items():
            numbers += null_scores(self.metrics, name, self.task.align(null, self.truth), self.truth, self.seed)
        met = [Score(metric=name, value=value, n=1) for name, value in sorted(self.result.customer.items())]
        return numbers + facts_as_scores(self.truth) + met

    # Rows and pictures

    @cached_property
    def notes(self) -> Sequence[str]:
        """What a reader of the numbers must know."""
        return notes_of(self, self.truth)

    def facts(self) -> CellFacts:
        """Return what all rows of the cell share."""
        result = self.result
        return CellFacts(
            cell_id=self.plan.cell_id,
            group_id=self.plan.group_id,
            knowledge=",".join(self.knowledge.names()),
            queries=sum(result.ledger["queries"].values()),
            gradient_evals=sum(result.ledger["gradients"].values()),
            seconds=result.seconds,
            training_seconds=self.victim.facts.get(TRAINING_SECONDS, NAN),
            peak_memory_mb=result.peak_memory_mb,
            senders=self.observation.view.senders or NAN if self.plan.access in ("gradients", "features") else NAN,
            device=str(self.workshop.device),
            notes="\n".join(self.notes),
            **plan_facts(self.plan),
            modality=self.split.spec.modality,
        )

    def rows(self, scores: Sequence[Score]) -> list[dict[str, Any]]:
        """Return one row per number."""
        facts = self.facts()
        return [make_row(facts, one) for one in scores]

    def draw(self) -> Path | None:
        """Draw the sheet private | reconstruction | control; None where the task has nothing to look at."""
        from mibench.running.sheet import draw_cell

        result, control = self.aligned
        units = self.task.units(self.full_case, self.goal)
        sheet = self.task.sheet(self.split.spec, units, self.truth, result, control)
        path = folder(self.plan, "results") / "pictures" / f"{self.plan.cell_id}.png"
        return None if sheet is None else draw_cell(path, self.plan, sheet)
