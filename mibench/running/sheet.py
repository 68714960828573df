"""The picture sheet of a cell: what was private, what came out, and what would have come out anyway."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from mibench.data import Split
from mibench.pictures import SheetRow, draw_sheet
from mibench.planning.plan import Plan
from mibench.tasks.base import Reconstruction, Truth
from mibench.tasks.class_ import ClassTruth
from mibench.tasks.completion import CompletionTruth
from mibench.tasks.instance import InstanceTruth

PER_TARGET = 4
TARGETS = 10


def draw_cell(
    path: Path, plan: Plan, split: Split, truth: Truth, result: Reconstruction, control: Reconstruction | None
) -> Path | None:
    """Draw the sheet of an image cell and return its path; None for tasks without pictures."""
    cards = plan.cards
    caption = (
        f"{cards.attack.title} on {cards.dataset.name}, {cards.target.name}, defense {cards.defense.name}, "
        f"seed {plan.config['seed']}"
    )
    if isinstance(truth, ClassTruth):
        rows = []
        for label in result.target.unique().tolist()[:TARGETS]:
            made = result.values[result.target == label][:PER_TARGET]
            other = None if control is None else control.values[control.target == label][:PER_TARGET]
            rows.append(SheetRow(split.class_names[label], [nearest(made, truth.images_of(label)), made, other]))
        return draw_sheet(path, ["nearest private image", "reconstruction", "control"], rows, caption)
    if isinstance(truth, CompletionTruth):
        rows = [
            SheetRow(split.class_names[int(truth.y[i])], [truth.masked[i : i + 1], truth.x[i : i + 1],
                     result.values[i : i + 1], None if control is None else control.values[i : i + 1]])
            for i in range(min(TARGETS, len(result)))
        ]  # fmt: skip
        return draw_sheet(path, ["masked image", "private image", "completion", "control"], rows, caption)
    if isinstance(truth, InstanceTruth):
        sender = "client" if plan.access == "features" else "update"
        shown = torch.arange(len(result))[: TARGETS * PER_TARGET].split(PER_TARGET)
        if len(result) <= TARGETS:
            shown = torch.arange(len(result)).split(1)
        if truth.unknown:
            alone = [SheetRow(f"{sender} {int(result.target[part[0]])}", [result.values[part]]) for part in shown]
            return draw_sheet(path, ["reconstruction"], alone, caption)
        rows = [
            SheetRow(f"{sender} {int(result.target[part[0]])}", [truth.x[part], result.values[part],
                     None if control is None else control.values[part]])
            for part in shown
        ]  # fmt: skip
        return draw_sheet(path, ["private input", "reconstruction", "control"], rows, caption)
    return None


def nearest(images: Tensor, private: Tensor) -> Tensor:
    """Return for every image the private one at the least squared pixel distance."""
    return private[torch.cdist(images.flatten(1), private.flatten(1)).argmin(1)]
