r"""Link stealing, attack 0 (He et al., Stealing Links from Graph Neural Networks, USENIX Security 2021).

The attacker asks the service about nodes and knows neither their features nor any link. A graph network mixes linked
nodes, so their posteriors are alike. The score of a pair is minus the distance :math:`d` of its posteriors:

.. math:: s(i, j) = -d\bigl(f(i), f(j)\bigr)

The paper tries eight distances, of which correlation is the default here. The sign is fixed in advance: the authors'
code (xinleihe/link_stealing_attack) turns an AUC below 1/2 around, which is not done here. A distance that is not
defined (the correlation with a constant posterior) counts as 0, as there.

Deviations: the paper also parts the distances into links and others by 2-means, which an AUC does not need. Attacks 1
to 7, with features, known links or a shadow data set, are other attacks.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import ScoresView
from mibench.attacks.base import Attack, AttackCard, Knowledge, Reconstruction
from mibench.optim.posterior_distance import link_scores
from mibench.options import Count
from mibench.tasks.edges import EdgesGoal


class LinkStealing(Attack[ScoresView, EdgesGoal]):
    """Pairs of nodes by how much their posteriors are alike."""

    card = AttackCard(
        name="link_stealing",
        title="Link stealing (attack 0)",
        modalities=("graph",),
        revision=2,
        year=2021,
        code="https://github.com/xinleihe/link_stealing_attack",
        fidelity="official",
        family="output matching",
        task="edges",
        access=("scores",),
    )
    length = ()

    metric: Literal[
        "cosine",
        "euclidean",
        "correlation",
        "chebyshev",
        "braycurtis",
        "canberra",
        "cityblock",
        "sqeuclidean",
    ] = "correlation"
    """The distance of two posteriors."""
    batch_size: Count = 512
    """Nodes per query."""

    def reconstruct(
        self, view: ScoresView, knowledge: Knowledge, goal: EdgesGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return minus the distance of every pair, after one query per node that stands in a pair."""
        nodes, place = goal.pairs.unique(return_inverse=True)
        answers = torch.empty(0, view.spec.classes, dtype=torch.float64, device=view.device)
        parts = nodes.to(view.device).split(self.batch_size)
        for step in self.steps(len(parts)):
            answers = torch.cat([answers, view.query(parts[step]).double()])
            self.keep(partial(self._scored, answers, place, goal))
        return self._scored(answers, place, goal)

    def _scored(self, answers: Tensor, place: Tensor, goal: EdgesGoal) -> Reconstruction:
        """Return the scores of the pairs both of whose nodes were answered.

        Args:
            answers: Posteriors of the first nodes, shape ``(n, classes)``.
            place: Which node each end of a pair is, shape ``(P, 2)``.
            goal: The pairs.
        """
        known = (place < len(answers)).all(1)
        scores = link_scores(answers, place.where(known[:, None], 0), self.metric)
        return Reconstruction(scores.where(known, 0.0), goal.target, valid=known)
