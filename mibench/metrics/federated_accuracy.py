"""Federated accuracy: what a defense of the updates costs, measured by training the global model with it.

The setting's clients train the target from scratch for ``rounds`` rounds, every update going through the defense, and
the global model is tested on the private test data; beside it, as the yardstick ``undefended``, the same rounds without
the defense. One defended update says nothing of this: noise that hides a batch may average out, and sparse updates may
catch up through error feedback, or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.options import Count, Positive
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


class FederatedAccuracy(Metric[InstanceTruth]):
    """Test accuracy of the global model after federated training under the defense, and without it."""

    card = MetricCard(
        name="federated_accuracy",
        title="Federated accuracy",
        modalities=("image", "tabular"),
        tasks=("instance",),
        higher_is_leakier=False,
        share=True,
        default=False,
    )
    of_victim: ClassVar[bool] = True

    rounds: Count = 100
    """Rounds of training."""
    batch_size: Count = 16
    """Examples of a client in each."""
    lr: Positive = 0.1
    """The server's step size."""

    @property
    def course(self) -> Mapping[str, int | float]:
        """The options of the setting with which the model is trained."""
        return {"rounds": self.rounds, "batch_size": self.batch_size, "lr": self.lr}

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return, per private test example, whether the global model is right, with and without the defense.

        Raises:
            NotMeasurableError: If the cell has no federated training.
        """
        if self.card.name not in truth.courses:
            raise NotMeasurableError("The cell has no clients that could train a model together.")
        defended, undefended = (answers.double() for answers in truth.courses[self.card.name])
        rows = torch.arange(len(defended))
        return [
            Measurement(values=defended, groups=rows),
            Measurement(values=undefended, groups=rows, variant="undefended", yardstick=True),
        ]
