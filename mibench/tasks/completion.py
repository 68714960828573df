"""Task ``completion``: private training images of which the attacker holds all but a hole, one answer per image.

The hole is the side fact ``knowledge.masked_image``. Control: the same attack on the same masked images, with a victim
that never saw these people or classes. What it names as their class means nothing among the private classes, so the
control of the class is the most frequent private one. Nulls: the mean of the public images in the hole, with the class
that the victim names of that picture; and the same attack on as many masked test images of the same classes, which the
victim was never trained on, compared with those.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population, digests
from mibench.knowledge import Knowledge
from mibench.pictures import SheetRow
from mibench.seeding import derive, generator, seeded
from mibench.tasks.base import TARGETS, Assignment, Case, Reconstruction, Sheet, Task
from mibench.tasks.instance import InstanceTruth, public_mean

Hole = Literal["centre", "face_t"]

#: Top, bottom, left and right of a hole's boxes, in 64ths of a side: the middle half of each side, or what a T covers
#: of a face, eyes and nose with mouth (SecretGen's masks ``center`` and ``face``).
HOLES: dict[str, Sequence[tuple[int, int, int, int]]] = {
    "centre": ((16, 48, 16, 48),),
    "face_t": ((25, 40, 10, 52), (40, 63, 26, 38)),
}
assert tuple(HOLES) == get_args(Hole)


def hole_mask(name: str, height: int, width: int) -> Tensor:
    """Return the hole called ``name`` of images of a size: True where a pixel is hidden, shape ``(1, 1, H, W)``."""
    mask = torch.zeros(1, 1, height, width, dtype=torch.bool)
    for top, bottom, left, right in HOLES[name]:
        rows, columns = (slice(round(a * n / 64), round(b * n / 64)) for a, b, n in
                         ((top, bottom, height), (left, right, width)))  # fmt: skip
        mask[..., rows, columns] = True
    return mask


@dataclass(frozen=True)
class CompletionGoal:
    """Images to complete.

    Attributes:
        images: Shape ``(N, C, H, W)`` in [0, 1]; zero inside the hole.
        hole: True where a pixel is hidden, shape ``(1, 1, H, W)``.
    """

    images: Tensor
    hole: Tensor

    @property
    def target(self) -> Tensor:
        """The position of every image, shape ``(N,)``."""
        return torch.arange(len(self.images), device=self.images.device)

    def to(self, device: torch.device) -> CompletionGoal:
        """Return the same goal on ``device``."""
        return CompletionGoal(self.images.to(device), self.hole.to(device))


@dataclass(frozen=True, kw_only=True)
class CompletionTruth(InstanceTruth):
    """The whole images, each a target of its own.

    Attributes:
        hole: What was hidden, shape ``(1, 1, H, W)``.
    """

    hole: Tensor

    def inside(self, images: Tensor) -> Tensor:
        """Return the pixels inside the hole, shape ``(N, C, pixels)``."""
        return images[..., self.hole[0, 0]]

    def cropped(self, images: Tensor) -> Tensor:
        """Return the least box around the hole, shape ``(N, C, h, w)``."""
        rows, columns = (torch.nonzero(self.hole[0, 0].any(side)).flatten() for side in (1, 0))
        return images[..., int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]

    def masked(self, spec: InputSpec) -> Tensor:
        """Return what the attacker held, blank inside the hole."""
        return torch.where(self.hole, spec.blank(len(self.x)), self.x)


def _chosen(assignment: Assignment) -> Examples:
    """Return ``budget.targets`` training images in random order, no class twice before every class had its turn."""
    train = assignment.split.private.train
    order = torch.randperm(len(train), generator=generator(derive(assignment.seed, "masked images")))
    seen: Counter[int] = Counter()
    turns = []
    for label in train.y[order].tolist():
        turns.append(seen[label])
        seen[label] += 1
    return train[order[torch.tensor(turns).argsort(stable=True)][: assignment.budget.targets]]


def _strangers(case: Case, labels: Tensor) -> Tensor | None:
    """Return a private test image of each class in ``labels``, in turn; None where a class has none."""
    test, taken = case.split.private.test, Counter[int]()
    order = torch.randperm(len(test), generator=generator(derive(case.seed, "non-members")))
    rows = []
    for label in labels.tolist():
        own = order[test.y[order] == label]
        if not len(own):
            return None
        rows.append(own[taken[label] % len(own)])
        taken[label] += 1
    return test.x[torch.stack(rows)]


class CompletionTask(Task[CompletionGoal, CompletionTruth]):
    """Completion of masked training images."""

    name = "completion"
    pictured = ("image",)
    headline = ("psnr", "hole", "")
    retrains = True
    meets_strangers = True

    def goal(self, assignment: Assignment) -> CompletionGoal:
        """Return ``budget.targets`` masked training images."""
        images = _chosen(assignment).x
        hole = hole_mask(assignment.masked_image, *images.shape[-2:])
        return CompletionGoal(images.masked_fill(hole, 0.0), hole)

    def held(self, goal: CompletionGoal) -> Sequence[str]:
        """Return the SHA-256 of the masked images."""
        return [hashlib.sha256(goal.images.contiguous().cpu().numpy().tobytes()).hexdigest()]

    def known(self, assignment: Assignment) -> tuple[str, ...]:
        """Return which part is hidden."""
        return (f"masked_image:{assignment.masked_image}",)

    def units(self, case: Case, goal: CompletionGoal) -> Sequence[str]:
        """Return the content of every whole image."""
        return digests(_chosen(case).x)

    def labels(self, case: Case) -> Tensor:
        """Return the class ids of the images."""
        return _chosen(case).y

    def blank(self, goal: CompletionGoal, spec: InputSpec) -> Reconstruction:
        """Return the images with a blank hole and class 0, all missing."""
        nothing = torch.zeros(len(goal.images), dtype=torch.long, device=goal.images.device)
        images = torch.where(goal.hole, spec.blank(len(goal.images), goal.images.device), goal.images)
        return Reconstruction(images, goal.target, labels=nothing, valid=nothing.bool())

    def check(self, result: Reconstruction, goal: CompletionGoal, spec: InputSpec) -> None:
        """Refuse, beside wrong shapes and ranges, an answer that changes a known pixel."""
        super().check(result, goal, spec)
        if not torch.equal(result.values.cpu().masked_fill(goal.hole.cpu(), 0.0), goal.images.cpu()):
            raise ValueError("Expected the pixels outside the hole to be those given, but some differ.")

    def truth(self, case: Case, goal: CompletionGoal) -> CompletionTruth:
        """Return the whole images and their class ids."""
        chosen = _chosen(case)
        return CompletionTruth(x=chosen.x, y=chosen.y, target=goal.target, hole=goal.hole, **case.utility)

    def control(
        self, case: Case, goal: CompletionGoal, knowledge: Knowledge, result: Reconstruction
    ) -> Population | None:
        """Return the held-out data, on whose victim the same attack is run."""
        return case.split.held_out

    def controlled(self, other: Reconstruction, case: Case, result: Reconstruction) -> Reconstruction:
        """Return the other victim's completions, and the most frequent private class for each."""
        frequent = case.split.private.train.y.bincount().argmax()
        labels = None if result.labels is None else frequent.expand(len(result)).clone()
        return replace(other, labels=labels)

    def nulls(self, case: Case, goal: CompletionGoal, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return the masked images with the mean of the public images in the hole; none without public images.

        The labels are what the victim's module names of these very pictures, None without a victim.
        """
        mean = public_mean(case.split)
        if mean is None:
            return {}

        own, labels = torch.where(goal.hole.cpu(), mean, goal.images.cpu()), None
        if case.victim is not None:
            with seeded(derive(case.seed, "nulls")):
                labels = case.victim.predict_proba(own).argmax(1).cpu()
        return {"public_mean": Reconstruction(own, goal.target.cpu(), labels=labels)}

    def strangers(self, case: Case, goal: CompletionGoal) -> tuple[CompletionGoal, CompletionTruth] | None:
        """Return a masked private *test* image of every target's class, with the same hole.

        A class with several targets takes its test images in turn, in an order drawn by seed. None where a class has no
        test image.
        """
        labels = _chosen(case).y
        images = _strangers(case, labels)
        if images is None:
            return None
        other = CompletionGoal(images.masked_fill(goal.hole.cpu(), 0.0), goal.hole.cpu())
        return other, CompletionTruth(x=images, y=labels, target=other.target, hole=other.hole, **case.utility)

    def sheet(
        self,
        spec: InputSpec,
        units: Sequence[str],
        truth: CompletionTruth,
        result: Reconstruction,
        control: Reconstruction | None,
    ) -> Sheet:
        """Return of every image what was given, the whole, its completion, and the control's."""
        shown = [truth.masked(spec), truth.x, result.values, None if control is None else control.values]
        rows = [
            SheetRow(f"class {int(truth.y[row])}", [None if one is None else one[row : row + 1] for one in shown])
            for row in range(min(TARGETS, len(result)))
        ]
        return Sheet(["given (masked)", "private", "recovered", "control"], rows)
