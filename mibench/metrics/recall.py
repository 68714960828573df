r"""Recall: how much of the variety of a class the reconstructions show.

Kynkäänniemi, Karras, Laine, Lehtinen and Aila, NeurIPS 2019.

.. math:: \mathrm{recall} = \frac{1}{N} \sum_{i=1}^{N} \mathbb{1}\Bigl[x_i \in \bigcup_j B(\hat x_j)\Bigr]

for the :math:`M` reconstructions :math:`\hat x` and the :math:`N` private training images :math:`x` of one class,
as penultimate features of an evaluation model, which take the place of the paper's network; :math:`B` is the open
ball that reaches to the :math:`k`-th nearest other point of the same set. Taken class by class and then averaged,
with :math:`k = 3` as in the literature of model inversion. This is the standard form; the metric code of PPA and of
toolboxes after it differs. Far-off samples have wide balls, so recall is high for scattered nonsense: read it
beside precision, or take coverage. A missing sample arrives as a mid-grey image and is measured as such.
"""

from __future__ import annotations

from mibench.card import MetricCard
from mibench.metrics.families.overlapping import Overlapping
from mibench.nn.neighbourhoods import Overlap


class Recall(Overlapping):
    """Recall of the samples of each class, per evaluation model."""

    card = MetricCard(
        name="recall",
        title="Recall",
        modalities=("image",),
        year=2019,
        bib="precision_recall",
        tasks=("class",),
        higher_is_leakier=True,
        share=True,
        default=False,
    )

    def share(self, found: Overlap) -> float:
        """Return the recall."""
        return found.recall
