"""Matching loss: the attack's own final objective, by which it chose among its starts.

Low means that the reconstruction explains the message. It compares results of one attack on one model; across attacks,
whose objectives differ, it says nothing. It needs no truth, and is all there is where a captured update comes without.
Where a message was altered by a defense, a low loss beside a poor picture says that the defense misled the attack.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


class MatchingLoss(Metric[InstanceTruth]):
    """The attack's final objective, one value per message."""

    card = MetricCard(
        name="matching_loss",
        title="Matching loss",
        modalities=("image", "text", "tabular", "audio"),
        tasks=("instance",),
        higher_is_leakier=None,
    )
    needs_no_truth: ClassVar[bool] = True

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return the loss of every entry that has one.

        Raises:
            NotMeasurableError: If the attack has no objective.
        """
        if result.loss is None:
            raise NotMeasurableError("The attack reports no objective of its own.")
        there = ~result.missing & result.loss.isfinite()
        if not bool(there.any()):
            raise NotMeasurableError("The attack met no finite objective.")
        return [Measurement(values=result.loss[there], groups=truth.target[there])]
