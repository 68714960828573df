r"""Tolerance accuracy: the share of a record's columns that were recovered.

.. math:: \frac{1}{D} \sum_j \mathbf{1}[\hat x_j = x_j] \quad \text{for categories}, \qquad
    \mathbf{1}[|\hat x_j - x_j| \leq t \, s_j] \quad \text{for numbers}

of every record and the one it was matched with (Vero et al., TabLeak, ICML 2023), where :math:`s_j` is the standard
deviation of column :math:`j` among the private training records (of a captured update, what its columns say) and
:math:`t` = 0.319: an interval that holds a quarter of a normal distribution. The variants ``categorical`` and
``continuous`` are the shares of the columns of that kind. A missing record has no column right. Tables are easy to
guess, and the best of several matchings more so the larger the batch is: the task's nulls, guesses without any message,
have to be read beside.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.optim.records import right_columns
from mibench.options import NonNegative
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


class ToleranceAccuracy(Metric[InstanceTruth]):
    """Share of columns that are right, per record: all of them, the categories, the numbers."""

    card = MetricCard(
        name="tolerance_accuracy",
        title="Tolerance accuracy",
        modalities=("tabular",),
        year=2023,
        bib="tableak",
        tasks=("instance",),
        higher_is_leakier=True,
        share=True,
    )

    tolerance: NonNegative = 0.319
    """Standard deviations by which a number may differ and still be right."""

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one share per record, shape ``(N,)``, of all columns and of those of either kind.

        Raises:
            NotMeasurableError: If the spread of the private records is not known.
        """
        if truth.spread is None:
            raise NotMeasurableError(
                "Nothing says how far numbers may differ: there are no private training records, and the columns of a "
                "captured update do not all have a 'std'."
            )
        right = right_columns(
            truth.columns, result.values.double(), truth.x.double(), self.tolerance * truth.spread.double()
        )
        right &= ~result.missing[:, None]
        categorical = torch.tensor([column.categorical for column in truth.columns])
        kinds = {"": torch.ones_like(categorical), "categorical": categorical, "continuous": ~categorical}
        return [
            Measurement(right[:, chosen].double().mean(1), truth.target, variant)
            if bool(chosen.any())
            else Measurement(torch.empty(0), truth.target, variant, reason=f"No column is {variant}.")
            for variant, chosen in kinds.items()
        ]
