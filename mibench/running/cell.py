"""The story of one cell, in the order in which data flow.

Dataset -> setting and target under the defense (:mod:`mibench.running.stage`) -> view at the attack's access ->
reconstruction, stored (:mod:`mibench.running.adversary`) -> metrics beside a control -> rows.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mibench.data import Population
from mibench.errors import NotStoredError, UserError, told
from mibench.leaderboard.lines import headline as leading
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score, facts_as_scores, score
from mibench.leaderboard.shards import write_shard
from mibench.leaderboard.statistics import NAN
from mibench.leaderboard.verdicts import judged
from mibench.metrics.base import Metric
from mibench.planning.length import doubled, length_of, with_length
from mibench.planning.plan import Plan, folder
from mibench.running.convergence import NO_SEARCH, UNKNOWN, Convergence, converged, headline
from mibench.running.finished import chance_of
from mibench.running.notes import NO_STRANGERS, notes_of
from mibench.running.pace import Paced
from mibench.settings.victim import TRAINING_SECONDS
from mibench.tasks.base import Case, Evaluator, Reconstruction, Truth
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


class Cell(Paced):
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
        """Run the cell to its rows, and write them and then the picture sheet."""
        done = self.measured()
        return replace(done, picture=self.drawn(done.scores))

    def measured(self) -> Outcome:
        """Run the cell to its rows, and write them."""
        scores = [*self.scores(), *self.length_scores()]
        shard = write_shard(folder(self.plan, "results"), self.plan.cell_id, self.rows(scores))
        return Outcome(scores, shard, None, self.notes, self.victim.facts.get("curve", ()))

    # Truth, control and metrics

    @cached_property
    def full_case(self) -> Case:
        """The case with the secret and the victim's utility."""
        test, secret = self.split.private.test, self.observation.secret  # in whose making a defense may choose
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
        return self.case(secret, utility, self.victim.snapshot)

    def courses(self) -> dict[str, tuple[Tensor, Tensor] | str]:
        """Return what metrics ask to be trained beside the cell, where there are clients to train it."""
        if "update" not in self.setting.card.training_hooks:
            return {}
        asked = {one.card.name: one.course(self.budget) for one in self.metrics}
        return {name: self.both_answers(options) for name, options in asked.items() if options}

    def both_answers(self, options: Mapping[str, Any]) -> tuple[Tensor, Tensor] | str:
        """Return the answers of a model that clients train with the defense and without, or why that is refused."""
        try:
            return self.federated_answers(options, True), self.federated_answers(options, False)
        except UserError as refused:  # more local steps than in the cell, of which a defense may make nothing
            return str(refused)

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
        beside = None if control is None else self.task.align(control, self.truth)
        return self.task.align(result, self.truth), beside

    def scores(self) -> list[Score]:
        """Return the numbers of the stored reconstruction, with their verdicts."""
        result, control = self.aligned
        numbers: list[Score] = []
        for metric in self.metrics:
            numbers += score(metric, result, control, self.truth, self.nulls, self.names, self.strangers)
        met = [Score(metric=name, value=value, n=1, samples=1) for name, value in sorted(self.result.customer.items())]
        return judged(numbers + facts_as_scores(self.truth) + met)

    @cached_property
    def nulls(self) -> dict[str, Reconstruction]:
        """What can be answered without the leak, by name, in the order of the truth."""
        if self.truth.unknown:
            return {}
        nulls = self.task.nulls(self.full_case, self.goal, self.knowledge)
        return {name: self.task.align(null, self.truth) for name, null in nulls.items()}

    @cached_property
    def strangers(self) -> dict[str, tuple[Reconstruction, Truth]]:
        """What the same attack makes of as much data that the victim was not trained on, with its truth."""
        if not self.task.meets_strangers or self.truth.unknown:
            return {}
        found = self.task.strangers(self.full_case, self.goal)
        if found is not None:
            goal, truth = found
            with contextlib.suppress(NotStoredError):
                other = self.attack(self.victim, self.split.private, "attack on non-members", other=goal)
                return {"non_members": (self.task.align(other.reconstruction, truth), truth)}
        self.remarks.append(NO_STRANGERS)
        return {}

    @property
    def names(self) -> dict[int, str]:
        """What every target is called in cells of other attacks and seeds too, by its number."""
        targets = self.result.reconstruction.target.unique().tolist()
        return dict(zip(targets, self.task.units(self.full_case, self.goal), strict=True))

    # The length of the search

    @property
    def convergence(self) -> str:
        """Whether the search has converged: a verdict of :class:`Convergence`."""
        return self.checked.verdict

    @cached_property
    def checked(self) -> Convergence:
        """What the attack at twice its length says of that at once, where ``convergence=check`` asks for it."""
        if self.config["convergence"] is None:
            return Convergence()
        length = length_of(self.paced.config["attack"])
        if not length:
            return Convergence(NO_SEARCH, reason="The attack searches nothing, so it has no length to double.")
        longer = self.paced.with_plan(with_length(self.paced.plan, doubled(length)))
        again = longer.attack(self.victim, self.split.private, "attack at twice the length")
        once, twice = (
            headline(
                self.metrics,
                self.task.name,
                self.split.spec.modality,
                self.task.align(one.reconstruction, self.truth),
                self.truth,
            )
            for one in (self.result, again)
        )
        if once is None or twice is None:
            return Convergence(UNKNOWN, reason="The cell does not measure its task's headline number.")
        return converged(once.values, twice.values, once.unit)

    def length_scores(self) -> list[Score]:
        """Return the rows of the check of convergence, and the options of a length that was scaled."""
        scaled = [Score(metric="length", variant=f"attack.{k}", value=v, n=1) for k, v in self.scaled.items()]
        return [*self.checked.scores(), *scaled]

    # Rows and pictures

    @cached_property
    def notes(self) -> Sequence[str]:
        """What a reader of the numbers must know."""
        return [*notes_of(self, self.truth), *self.pace_notes()]

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
            judged_by="; ".join(_described(one) for one in self.truth.evaluators),
            judge_seconds=sum(one.seconds for one in self.truth.evaluators) if self.truth.evaluators else NAN,
            convergence=self.convergence,
            device=str(self.workshop.device),
            notes="\n".join(self.notes),
            **plan_facts(self.plan),
            modality=self.split.spec.modality,
        )

    def rows(self, scores: Sequence[Score]) -> list[dict[str, Any]]:
        """Return one row per number."""
        facts = self.facts()
        return [make_row(facts, one) for one in scores]

    def draw(self, scores: Sequence[Score]) -> Path | None:
        """Draw the sheet private | recovered | control below the verdict; None where there is nothing to look at."""
        from mibench.running.sheet import draw_cell

        result, control = self.aligned
        units = self.task.units(self.full_case, self.goal)
        sheet = self.task.sheet(self.split.spec, units, self.truth, result, control)
        path = folder(self.plan, "results") / "pictures" / f"{self.plan.cell_id}.png"
        number = leading(scores, self.task.name, self.split.spec.modality)
        return None if sheet is None else draw_cell(path, self.plan, sheet, number)

    def drawn(self, scores: Sequence[Score]) -> Path | None:
        """Draw the sheet as :meth:`draw` does; where that fails a warning says so, because the rows stand."""
        try:
            return self.draw(scores)
        except Exception as error:
            log.warning(
                "The picture was not drawn (%s); the rows stand, and the same command draws it again.", told(error)
            )
            return None


def _described(judge: Evaluator) -> str:
    """Return an evaluation model for a row: its accuracy, its training, and whether it has no vote."""
    trained = f", {judge.steps} steps" if judge.steps else ""
    return f"{judge.name} ({judge.accuracy:.3f}{trained}{'' if judge.votes else ', no vote'})"
