r"""Precision: how many reconstructions look like real images of their class.

Kynkäänniemi, Karras, Laine, Lehtinen and Aila, NeurIPS 2019.

.. math:: \mathrm{precision} = \frac{1}{M} \sum_{j=1}^{M} \mathbb{1}\Bigl[\hat x_j \in \bigcup_i B(x_i)\Bigr]

for the :math:`M` reconstructions :math:`\hat x` and the :math:`N` private training images :math:`x` of one class,
as penultimate features of an evaluation model, which take the place of the paper's network; :math:`B` is the open
ball that reaches to the :math:`k`-th nearest other point of the same set. Taken class by class and then averaged,
with :math:`k = 3` as in the literature of model inversion. This is the standard form; the metric code of PPA and of
toolboxes after it differs. High precision with low recall is an attack that finds a few likenesses and repeats
them. A missing sample arrives as a mid-grey image and is measured as such.
"""

from __future__ import annotations

from mibench.card import MetricCard
from mibench.metrics.families.overlapping import Overlapping
from mibench.nn.neighbourhoods import Overlap


class Precision(Overlapping):
    """Precision of the samples of each class, per evaluation model."""

    card = MetricCard(
        name="precision",
        title="Precision",
        modalities=("image",),
        year=2019,
        bib="precision_recall",
        tasks=("class",),
        higher_is_leakier=True,
        share=True,
        default=False,
    )

    def share(self, found: Overlap) -> float:
        """Return the precision."""
        return found.precision
