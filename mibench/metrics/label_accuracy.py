r"""Label accuracy: how much of the multiset of a batch's class ids was recovered from its update.

.. math:: \frac{1}{n} \sum_c \min(\hat n_c, n_c)

per message of ``n`` inputs, where :math:`\hat n_c` and :math:`n_c` count class ``c`` among the recovered and
the true ids. For as many recovered ids as true ones it equals :math:`1 - \frac{1}{2n} \sum_c |\hat n_c -
n_c|`. A gradient says nothing of the order in a batch, so none is asked for; a masked image is a message of one.
A missing input recovers no id. Where the threat model grants the labels (the row's ``knowledge``), the number says so
and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


class LabelAccuracy(Metric[InstanceTruth]):
    """Multiset overlap of recovered and true class ids, one value per message."""

    card = MetricCard(
        name="label_accuracy",
        title="Label accuracy",
        modalities=("image", "text", "tabular", "audio"),
        tasks=("instance", "completion"),
        higher_is_leakier=True,
        share=True,
    )

    def measure(self, result: Reconstruction, truth: InstanceTruth) -> Sequence[Measurement]:
        """Return one overlap per message, shape ``(messages,)``.

        Raises:
            NotMeasurableError: If the attack returned no labels.
        """
        if result.labels is None:
            raise NotMeasurableError("The attack returned no class ids with its inputs, so none can be compared.")
        if int(truth.y.min()) < 0:
            raise NotMeasurableError(
                "Nobody said which classes are behind the update; put 'labels' into dataset.truth."
            )
        messages = truth.target.unique()
        classes = int(torch.cat([result.labels, truth.y]).max()) + 1
        overlaps = []
        for message in messages:
            own = truth.target == message
            recovered = result.labels[own & ~result.missing].bincount(minlength=classes)
            true = truth.y[own].bincount(minlength=classes)
            overlaps.append(torch.minimum(recovered, true).sum() / own.sum())
        return [Measurement(values=torch.stack(overlaps), groups=messages)]
