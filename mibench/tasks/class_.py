"""Task ``class``: images that show what a private class looks like (identity inversion).

Control: the same attack, with the same budget, on a victim that never saw those people or classes. Nulls: what the
victim's answers to public examples give without any search: the public examples that it is surest of, and public
examples that are hardly changed until it takes them for the class. An attack that does not beat them made no likeness.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population, evenly
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.optim.perturbation import towards
from mibench.optim.selection import highest_inputs
from mibench.pictures import SheetRow, as_pictures, nearest, noun
from mibench.seeding import derive, generator, seeded
from mibench.tasks.base import PER_TARGET, TARGETS, Assignment, Case, Reconstruction, Sheet, Task, Truth

#: The most public examples that the null ``nearest_public`` asks about, evenly taken.
PUBLIC_EXAMPLES = 4096

#: How far the null ``transfer_floor`` moves an entry, as a share of its range, and in how many steps.
EPSILON, STEPS = 0.1, 20


@dataclass(frozen=True)
class ClassGoal:
    """The classes to reconstruct.

    Attributes:
        targets: Class ids of shape ``(T,)``.
        samples: Reconstructions wanted per class.
    """

    targets: Tensor
    samples: int

    @property
    def labels(self) -> Tensor:
        """The class id of every wanted reconstruction, shape ``(T * samples,)``, samples of a class side by side."""
        return self.targets.repeat_interleave(self.samples)


@dataclass(frozen=True, kw_only=True)
class ClassTruth(Truth):
    """The private images of every class, and what shows how far the evaluation models can be trusted.

    Attributes:
        private: What the victim was trained and tested on.
        public: The attacker's data, which show none of the private classes; None where there are none.
        victim: The victim's module; None where there is none.
        subject: What the images show: ``face``; empty where the dataset does not say.
    """

    private: Population
    public: Examples | None = None
    victim: Classifier | None = None
    subject: str = ""

    def images_of(self, label: int) -> Tensor:
        """Return the private training images of one class, shape ``(n, C, H, W)``."""
        return self.private.train.x[self.private.train.y == label]


class ClassTask(Task[ClassGoal, ClassTruth]):
    """Class-level reconstruction."""

    name = "class"
    pictured = ("image", "audio")
    headline = ("attack_accuracy", "top1", "vote")
    judged = True
    retrains = True

    def goal(self, assignment: Assignment) -> ClassGoal:
        """Return the first ``budget.targets`` private classes (all of them where there are fewer)."""
        split, budget = assignment.split, assignment.budget
        count = min(budget.targets, split.spec.classes)
        if split.held_out is not None:
            count = min(count, int(split.held_out.train.y.max()) + 1)
        return ClassGoal(torch.arange(count), budget.samples)

    def blank(self, goal: ClassGoal, spec: InputSpec) -> Reconstruction:
        """Return blank inputs, all missing."""
        labels = goal.labels
        values = spec.blank(len(labels), labels.device)
        return Reconstruction(values, labels, valid=torch.zeros(len(labels), dtype=torch.bool, device=labels.device))

    def truth(self, case: Case, goal: ClassGoal) -> ClassTruth:
        """Return the private images with the evaluation models, the public images and the victim."""
        return ClassTruth(
            private=case.split.private,
            public=case.split.public,
            victim=case.victim,
            subject=case.split.subject,
            **case.utility,
        )

    def control(self, case: Case, goal: ClassGoal, knowledge: Knowledge, result: Reconstruction) -> Population | None:
        """Return the held-out classes, on whose victim the same attack is run."""
        return case.split.held_out

    def nulls(self, case: Case, goal: ClassGoal, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return public examples that the victim takes for the classes; none without a victim or public data.

        ``nearest_public`` are those whose class the victim's module is surest of, as the attack of that name takes
        them, of at most ``PUBLIC_EXAMPLES`` evenly taken ones. ``transfer_floor``, for inputs with a range alone, are
        public examples drawn at random, moved by at most ``EPSILON`` of the range per entry against the victim
        (:func:`mibench.optim.perturbation.towards`): they show nobody of the class.
        """
        victim, public, spec = case.victim, case.split.public, case.split.spec
        if victim is None or public is None or not len(public):
            return {}
        labels = goal.labels.cpu()
        with seeded(derive(case.seed, "nulls")):
            asked = evenly(public.x, PUBLIC_EXAMPLES)
            scores = victim.predict_proba(asked).cpu()[:, goal.targets.cpu()]
            made = {"nearest_public": highest_inputs(asked, scores, goal.samples)}
            if spec.ranged:
                order = torch.randperm(len(public), generator=generator(derive(case.seed, "moved examples")))
                start = public.x[order[torch.arange(len(labels)) % len(order)]]
                made["transfer_floor"] = towards(victim, start, labels, EPSILON, STEPS, spec.low, spec.high)
        return {name: Reconstruction(values, labels) for name, values in made.items()}

    def units(self, case: Case, goal: ClassGoal) -> Sequence[str]:
        """Return the names of the attacked classes."""
        return [case.split.class_names[label] for label in goal.targets.tolist()]

    def sheet(
        self,
        spec: InputSpec,
        units: Sequence[str],
        truth: ClassTruth,
        result: Reconstruction,
        control: Reconstruction | None,
    ) -> Sheet:
        """Return of every class the nearest private example of each reconstruction, these, and the control's."""
        rows = []
        for unit, label in list(zip(units, result.target.unique().tolist(), strict=True))[:TARGETS]:
            made = result.values[result.target == label][:PER_TARGET]
            other = None if control is None else control.values[control.target == label][:PER_TARGET]
            shown = [nearest(made, truth.images_of(label)), made, other]
            rows.append(SheetRow(unit, [None if one is None else as_pictures(one, spec) for one in shown]))
        return Sheet([f"private (nearest {noun(spec)})", "recovered", "control"], rows)
