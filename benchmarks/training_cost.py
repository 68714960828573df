"""What a defense's training costs over that of the same target without: ``python benchmarks/training_cost.py``.

3x32x32 pixels, batches of 64, 16 classes, one thread, each defense at its defaults. A training of a few steps runs
under the defense and, right after it, without; the median of the ratios of their CPU seconds counts. A regulariser
alone, one more term of the loss, may cost three times as much at the most, on ``cnn`` and on ``resnet18``; the others,
which train longer or something else too, are measured on ``cnn`` and not bounded.
"""

from __future__ import annotations

import statistics
import sys

import torch
from figures import Figure, report

from mibench.card import DefenseCard
from mibench.data import Examples, InputSpec
from mibench.defenses.base import DefenderData, Defense, DefenseContext
from mibench.planning.catalogue import entries
from mibench.planning.composition import build, compose, plain
from mibench.settings.victim import Blueprint, initial_model
from mibench.storage.workshop import clock
from mibench.targets.base import Target
from mibench.targets.cnn import Cnn
from mibench.targets.resnet18 import ResNet18
from mibench.training import Recipe, Training

SPEC = InputSpec("image", (3, 32, 32), classes=16, mirrored=True)
STEPS: dict[type[Target], int] = {Cnn: 12, ResNet18: 2}
REGULARISERS = ("bido", "bido_coco", "mid", "neg_ls", "nopeek")
LIMIT = 3.0
BATCH = 64
PAIRS = 5


def data(seed: int, steps: int) -> Examples:
    """Return images of noise, which take as long as any others, for as many steps."""
    draws = torch.Generator().manual_seed(seed)
    y = torch.arange(steps * BATCH) % SPEC.classes
    return Examples(torch.rand(len(y), *SPEC.shape, generator=draws), y)


def seconds(target: type[Target], defense: Defense, train: Examples, public: Examples) -> float:
    """Return the CPU seconds of one training."""
    recipe = Recipe(epochs=1, batch_size=BATCH)
    context = DefenseContext(SPEC, DefenderData(train, train[torch.arange(0)], public), 0, torch.device("cpu"))
    model = initial_model(Blueprint("target", lambda spec: target(spec=spec), recipe, {}), SPEC, defense, context)
    start = clock(context.device)
    changed = defense.data(train, context)
    given = public if defense.learns_from_public else None
    defense.fit(Training(model, changed, recipe, 0, torch.device("cpu"), public=given))
    return clock(context.device) - start


def measure() -> list[Figure]:
    """Return the ratio of every defense that takes part in the training of images."""
    torch.set_num_threads(1)
    names = []
    for one in entries("defense"):
        assert isinstance(one.card, DefenseCard)
        if "image" in one.card.modalities and one.card.trains and "parts" not in one.node:
            names.append(one.name)
    figures = []
    for target, steps in STEPS.items():
        train, public = data(0, steps), data(1, steps)
        seconds(target, Defense(), train, public)  # warm
        for name in names if target is Cnn else REGULARISERS:
            block = plain(compose([f"defense={name}", "budget=smoke"]).defense)
            pairs = [
                (seconds(target, build(block), train, public), seconds(target, Defense(), train, public))
                for _ in range(PAIRS if name in REGULARISERS else 2)
            ]
            ratio = statistics.median(defended / plain for defended, plain in pairs)
            limit = LIMIT if name in REGULARISERS else None
            figures.append(Figure(f"training of {target.card.name} under {name}", ratio, "x", limit))
    return figures


if __name__ == "__main__":
    sys.exit(report(measure()))
