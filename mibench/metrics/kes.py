"""Knowledge extraction score: the accuracy, on real private images, of a student that saw reconstructions alone.

Struppek, Hintersdorf and Kersting, ICLR 2024. A fresh classifier is trained on the reconstructions with their target
labels, and tested on the private images of the attacked classes: on test images (variant ``test``) and on the
victim's training images (``train``), as the authors' script does. What it knows of the classes the attack must have
extracted.

Deviations. The authors' student is a ResNet-50 pre-trained on ImageNet, trained with SGD for 75 epochs under random
crops and flips of 224 pixels; this one is mibench's small CNN from scratch, trained with Adam on the samples as
they are, so that it runs anywhere and its floor is chance. Its numbers cannot be compared with the paper's. It learns
from samples in an order that depends on the samples alone. The student learns adversarial texture as readily as
likeness: read the score beside ``agreed_accuracy`` and against its control. Few classes make it easy: chance is one
over their number. A missing sample arrives as a mid-grey image and is learned from as such.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.data import Examples, InputSpec
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.options import Count, Positive
from mibench.seeding import generator, seeded
from mibench.targets.cnn import Cnn
from mibench.tasks.base import Reconstruction
from mibench.tasks.class_ import ClassTruth
from mibench.training import Recipe, Training, is_correct

SMALLEST_SIDE = 8


class Kes(Metric[ClassTruth]):
    """Accuracy of a student of the reconstructions on private test and training images of the attacked classes."""

    card = MetricCard(
        name="kes",
        title="Knowledge extraction score",
        modalities=("image",),
        year=2024,
        code="https://github.com/LukasStruppek/Plug-and-Play-Attacks",
        fidelity="reconstruction",
        tasks=("class",),
        higher_is_leakier=True,
        default=False,
    )

    width: Count = 16
    """Channels of the student's first block."""
    epochs: Count = 75
    """Passes over the reconstructions."""
    min_steps: Count = 300
    """Optimiser steps at the least: few reconstructions are passed over more often."""
    batch_size: Count = 32
    """Reconstructions per step."""
    lr: Positive = 2e-3
    """Learning rate."""
    seed: int = 0
    """Seed of the student, the same for result and control."""

    def measure(self, result: Reconstruction, truth: ClassTruth) -> Sequence[Measurement]:
        """Return whether the student is right, per private image of an attacked class.

        Raises:
            NotMeasurableError: If a single class is attacked, or images are too small for the student.
        """
        classes, y = result.target.cpu().unique(return_inverse=True)
        if len(classes) < 2:
            raise NotMeasurableError("A student of a single class is always right, so it is not a measurement.")
        if min(result.values.shape[-2:]) < SMALLEST_SIDE:
            raise NotMeasurableError(f"The student needs images of at least {SMALLEST_SIDE}x{SMALLEST_SIDE} pixels.")
        order = _order(result.values.cpu(), y)
        device = truth.evaluators[0].model.device if truth.evaluators else torch.device("cpu")
        shape = tuple(result.values.shape[1:])
        spec = InputSpec(modality="image", shape=shape, classes=len(classes))
        with seeded(self.seed):
            student = Cnn(spec=spec, width=self.width).to(device)
        lesson = Examples(result.values.cpu().float()[order], y[order]).to(device)
        recipe = Recipe(epochs=self.epochs, min_steps=self.min_steps, batch_size=self.batch_size, lr=self.lr)
        Training(student, lesson, recipe, self.seed, device, label="student").run()
        measured = []
        for variant, data in (("test", truth.private.test), ("train", truth.private.train)):
            asked = data[torch.isin(data.y, classes.to(data.y.device))]
            own = Examples(asked.x, torch.searchsorted(classes, asked.y.cpu()))
            right = is_correct(student.predict_proba, own)
            measured.append(Measurement(values=right.double(), groups=asked.y.cpu(), variant=variant, evaluator="cnn"))
        return measured


def _order(images: Tensor, labels: Tensor) -> Tensor:
    """Return an order of labelled images that does not depend on the one they come in."""
    flat = images.flatten(1).double()
    key = flat @ torch.randn(flat.shape[1], generator=generator(0), dtype=torch.float64)
    by_key = key.argsort()
    return by_key[labels[by_key].argsort(stable=True)]
