r"""Coverage: how many real images of a class have a reconstruction near them.

Naeem, Oh, Uh, Choi and Yoo, ICML 2020.

.. math:: \mathrm{coverage} = \frac{1}{N} \sum_{i=1}^{N} \mathbb{1}[\exists j : \hat x_j \in B(x_i)]

for the :math:`M` reconstructions :math:`\hat x` and the :math:`N` private training images :math:`x` of one class,
as penultimate features of an evaluation model, which take the place of the paper's network; :math:`B` is the open
ball that reaches to the :math:`k`-th nearest other point of the same set. Taken class by class and then averaged,
with :math:`k = 3` as in the literature of model inversion. This is the standard form; the metric code of PPA and of
toolboxes after it differs. Only the balls of real images count, so scattered samples gain nothing; it is bounded by
how many samples there are. A missing sample arrives as a mid-grey image and is measured as such.
"""

from __future__ import annotations

from mibench.card import MetricCard
from mibench.metrics.families.overlapping import Overlapping
from mibench.nn.neighbourhoods import Overlap


class Coverage(Overlapping):
    """Coverage of the samples of each class, per evaluation model."""

    card = MetricCard(
        name="coverage",
        title="Coverage",
        modalities=("image",),
        year=2020,
        bib="density_coverage",
        tasks=("class",),
        higher_is_leakier=True,
        share=True,
        default=False,
    )

    def share(self, found: Overlap) -> float:
        """Return the coverage."""
        return found.coverage
