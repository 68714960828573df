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

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from mibench.access import ScoresView
from mibench.attacks.base import Attack, AttackCard, Knowledge, Reconstruction
from mibench.options import Count
from mibench.tasks.edges import EdgesGoal


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return 1 - cosine_similarity(a, b, eps=1e-300)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Return quotients, 0 where both are 0."""
    return torch.where(below > 0, above / below.clamp_min(1e-300), 0.0)


#: The distances of posteriors ``(P, classes)``, row by row.
DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cosine": _cosine,
    "euclidean": lambda a, b: (a - b).square().sum(1).sqrt(),
    "correlation": lambda a, b: _cosine(a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)),
    "chebyshev": lambda a, b: (a - b).abs().amax(1),
    "braycurtis": lambda a, b: _ratio((a - b).abs().sum(1), (a + b).abs().sum(1)),
    "canberra": lambda a, b: _ratio((a - b).abs(), a.abs() + b.abs()).sum(1),
    "cityblock": lambda a, b: (a - b).abs().sum(1),
    "sqeuclidean": lambda a, b: (a - b).square().sum(1),
}


class LinkStealing(Attack[ScoresView, EdgesGoal]):
    """Pairs of nodes by how much their posteriors are alike."""

    card = AttackCard(
        name="link_stealing",
        title="Link stealing (attack 0)",
        modalities=("graph",),
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
        left, right = answers[place.where(known[:, None], 0).to(answers.device)].unbind(1)
        distance = DISTANCES[self.metric](left, right).nan_to_num(0.0, 0.0, 0.0).clamp_min(0)  # rounding goes below
        return Reconstruction(-distance.cpu().where(known, 0.0).float(), goal.target, valid=known)
