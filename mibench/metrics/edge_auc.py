r"""Area under the ROC curve of told links: the chance that a linked pair is ranked above one that is not.

.. math:: \mathrm{AUC} = \frac{1}{mn} \sum_{i \in \text{linked}} \sum_{j \in \text{others}}
    \mathbf 1[s_i > s_j] + \tfrac12 \mathbf 1[s_i = s_j]

1/2 is chance. A pair without an answer ties with all others, so no answer at all is chance too.

One AUC is a single number, and its error comes from both kinds of pairs (E. R. DeLong et al., Comparing the areas under
two or more correlated receiver operating characteristic curves, Biometrics 1988). The value of a linked pair is the
share of others that it is ranked above, plus how much the other pairs that fall to it (the k-th to the k-th) deviate:
the share of linked pairs that each is ranked below, less the AUC. These values average to the AUC exactly, and their
variance is DeLong's. A single value can lie outside [0, 1].
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mibench.card import MetricCard
from mibench.errors import NotMeasurableError
from mibench.metrics.base import Measurement, Metric
from mibench.tasks.base import Reconstruction
from mibench.tasks.edges import EdgesTruth


class EdgeAuc(Metric[EdgesTruth]):
    """AUC over linked and other pairs; the unit is the linked pair."""

    card = MetricCard(
        name="edge_auc",
        title="AUC of links",
        modalities=("graph",),
        year=1988,
        tasks=("edges",),
        higher_is_leakier=True,
        share=True,
    )

    def measure(self, result: Reconstruction, truth: EdgesTruth) -> Sequence[Measurement]:
        """Return one value per linked pair, shape ``(linked,)``, grouped by the pair.

        Raises:
            NotMeasurableError: If all pairs are linked, or none is.
        """
        linked = truth.linked
        sure, silent = result.values.double(), result.missing
        m, n = int(linked.sum()), int((~linked).sum())
        if not m or not n:
            raise NotMeasurableError("An AUC needs linked pairs and others; the goal has only one of them.")
        above = share_below(sure[linked], silent[linked], sure[~linked], silent[~linked])
        below = share_below(-sure[~linked], silent[~linked], -sure[linked], silent[linked])
        falls_to = torch.arange(n) % m
        deviation = torch.zeros(m, dtype=torch.float64).index_add(0, falls_to, below - below.mean())
        return [Measurement(values=above + m / n * deviation, groups=result.target[linked])]


def share_below(sure: Tensor, silent: Tensor, others: Tensor, others_silent: Tensor) -> Tensor:
    """Return the share of ``others`` that each is ranked above, ties and comparisons without an answer half.

    Args:
        sure: How sure the attack is, shape ``(m,)``.
        silent: Where it has no answer, shape ``(m,)``.
        others: How sure it is of the others, shape ``(n,)``.
        others_silent: Where it has no answer of those, shape ``(n,)``.
    """
    ranked = others[~others_silent].sort().values
    lower, upper = (torch.searchsorted(ranked, sure, right=right).double() for right in (False, True))
    share = ((lower + upper) / 2 + int(others_silent.sum()) / 2) / len(others)
    return share.where(~silent, 0.5)
