"""Federated accuracy: what a defense of the updates costs, measured by training the global model with it.

The setting's clients train the target from scratch for ``rounds`` rounds, every update going through the defense, and
the global model is tested on the private test data; beside it, as the yardstick ``undefended``, the same rounds without
the defense. One defended update says nothing of this: noise that hides a batch may average out, and sparse updates may
catch up through error feedback, or not.

The server is honest, and neither the attack nor the batch that it meets counts, so all attacks on one target and
defense share both trainings. Where a training does not get off the ground, its number is near chance. Under
``budget=smoke`` it nearly always is: a few rounds only show that the training runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.options import Count, Positive
from mibench.tasks.base import Budget, Reconstruction
from mibench.tasks.instance import InstanceTruth

#: Rounds of training under a budget; 100 under any other.
ROUNDS: Mapping[str, int] = {"smoke": 5}


class FederatedAccuracy(Metric[InstanceTruth]):
    """Test accuracy of the global model after federated training under the defense, and without it."""

    card = MetricCard(
        name="federated_accuracy",
        title="Federated accuracy",
        modalities=("image", "text", "tabular", "audio"),
        tasks=("instance", "sequence"),
        higher_is_leakier=False,
        share=True,
        updates=True,
    )
    of_victim: ClassVar[bool] = True

    rounds: Count | None = None
    """Rounds of training; null for 5 under ``budget=smoke`` and 100 otherwise."""
    batch_size: Count = 16
    """Examples of a client in each; all that it owns where these are fewer."""
    lr: Positive = 0.1
    """The server's step size."""

    def course(self, budget: Budget) -> Mapping[str, int | float]:
        """Return the options of the setting with which the model is trained."""
        rounds = self.rounds or ROUNDS.get(budget.name, 100)
        return {"rounds": rounds, "batch_size": self.batch_size, "lr": self.lr}

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return, per private test example, whether the global model is right, with and without the defense.

        Raises:
            NotMeasurableError: If the cell has no federated training, or its defense takes no part in such a one.
        """
        course = truth.courses.get(self.card.name, "The cell has no clients that could train a model together.")
        if isinstance(course, str):
            raise NotMeasurableError(course)
        defended, undefended = (answers.double() for answers in course)
        rows = torch.arange(len(defended))
        return [
            Measurement(values=defended, groups=rows),
            Measurement(values=undefended, groups=rows, variant="undefended", yardstick=True),
        ]
