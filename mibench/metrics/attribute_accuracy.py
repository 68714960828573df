"""Attribute accuracy: the share of records whose sensitive value was named rightly.

Where one value is frequent, naming it always is right often; two things guard against reading that as a leak.
The control is the best guess without the model, and the variant ``balanced`` is the mean over the values of the
share right among the records that bear it, so that a constant guess of ``K`` values scores ``1/K``. The
interval of ``balanced`` is taken over values, not records, and is wide where they are few. A record without an
answer counts as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from mibench.card import MetricCard
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.attribute import AttributeTruth
from mibench.tasks.base import Reconstruction


class AttributeAccuracy(Metric[AttributeTruth]):
    """Accuracy over records, and balanced over the values of the attribute."""

    card = MetricCard(
        name="attribute_accuracy",
        title="Attribute accuracy",
        modalities=("tabular",),
        tasks=("attribute",),
        higher_is_leakier=True,
        share=True,
    )

    def measure(self, result: Reconstruction, truth: AttributeTruth) -> Sequence[Measurement]:
        """Return hits of shape ``(N,)``, once grouped by record and once by true value."""
        right = ((result.values == truth.values) & ~result.missing).double()
        return [
            Measurement(values=right, groups=result.target),
            Measurement(values=right, groups=truth.values, variant="balanced"),
        ]
