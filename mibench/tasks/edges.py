"""Task ``edges``: which pairs of nodes are linked in the graph that a model was trained on.

Asked are ``budget.records`` linked pairs and as many that are not, drawn by seed. The answer is how sure the attack is
of a link. Control: the same attack on a victim of the same nodes that never saw a link. Nulls: how much the features of
two nodes are alike, which tells much of a link where like nodes are linked, and how much the victim's answers to them
are when it is asked without any link: what its weights alone give away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mibench.data import Graph, InputSpec, Population
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.posterior_distance import link_scores
from mibench.pictures import SheetRow
from mibench.seeding import derive, generator
from mibench.tasks.base import TARGETS, Assignment, Case, Reconstruction, Sheet, Task, Truth


@dataclass(frozen=True)
class EdgesGoal:
    """Pairs of nodes to tell apart.

    Attributes:
        pairs: Node ids, shape ``(P, 2)``, linked and other pairs in random order.
    """

    pairs: Tensor

    @property
    def target(self) -> Tensor:
        """The position of every pair, shape ``(P,)``."""
        return torch.arange(len(self.pairs))


@dataclass(frozen=True, kw_only=True)
class EdgesTruth(Truth):
    """Which pairs are linked.

    Attributes:
        linked: Whether each pair is, shape ``(P,)``.
    """

    linked: Tensor


def _graph(assignment: Assignment) -> Graph:
    graph = assignment.split.private.graph
    if graph is None:
        raise UserError("Task 'edges' asks for the links of a graph, and the dataset has none; set dataset=cora.")
    return graph


def drawn_pairs(graph: Graph, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Return linked pairs and as many others, shape ``(P, 2)``, in random order, and which are linked, ``(P,)``.

    Args:
        graph: The graph.
        count: Linked pairs; all where there are fewer, and never more than there are others.
        seed: Seed of the draws.
    """
    draws, nodes = generator(derive(seed, "pairs")), len(graph.features)
    linked = graph.edges.T
    count = min(count, nodes * (nodes - 1) // 2 - len(linked))
    chosen = linked[torch.randperm(len(linked), generator=draws)[:count]]
    known = {tuple(pair) for pair in linked.tolist()}
    others: dict[tuple[int, int], None] = {}
    while len(others) < len(chosen):
        low, high = sorted(torch.randint(nodes, (2,), generator=draws).tolist())
        if low != high and (low, high) not in known:
            others[low, high] = None
    pairs = torch.cat([chosen, torch.tensor(list(others), dtype=torch.long).reshape(-1, 2)])
    order = torch.randperm(len(pairs), generator=draws)
    return pairs[order], (order < len(chosen))


class EdgesTask(Task[EdgesGoal, EdgesTruth]):
    """Link inference."""

    name = "edges"
    pictured = ("graph",)
    headline = ("edge_auc", "", "")
    retrains = True

    def goal(self, assignment: Assignment) -> EdgesGoal:
        """Return linked and other pairs."""
        return EdgesGoal(drawn_pairs(_graph(assignment), assignment.budget.records, assignment.seed)[0])

    def blank(self, goal: EdgesGoal, spec: InputSpec) -> Reconstruction:
        """Return no confidence in any pair, all missing."""
        n = len(goal.pairs)
        return Reconstruction(torch.zeros(n), goal.target, valid=torch.zeros(n, dtype=torch.bool))

    def check_values(self, values: Tensor, goal: EdgesGoal, spec: InputSpec) -> None:
        """Refuse confidences that are no numbers."""
        if not bool(torch.isfinite(values).all()):
            raise ValueError("Expected finite confidences, but some are NaN or infinite.")

    def truth(self, case: Case, goal: EdgesGoal) -> EdgesTruth:
        """Return which pairs are linked."""
        linked = drawn_pairs(_graph(case), case.budget.records, case.seed)[1]
        return EdgesTruth(linked=linked, **case.utility)

    def control(self, case: Case, goal: EdgesGoal, knowledge: Knowledge, result: Reconstruction) -> Population | None:
        """Return the same nodes without a link, on whose victim the same attack is run."""
        return case.split.held_out

    def nulls(self, case: Case, goal: EdgesGoal, knowledge: Knowledge) -> Mapping[str, Reconstruction]:
        """Return how much the nodes of every pair are alike, without any link.

        ``features`` is the cosine of their features. ``empty_graph`` is minus the correlation distance of the answers
        of the victim's weights on the nodes without a link, as ``link_stealing`` reads them; only for a victim that
        holds the links.
        """
        left, right = (_graph(case).features[goal.pairs[:, side]] for side in (0, 1))
        nulls = {"features": Reconstruction(torch.cosine_similarity(left, right), goal.target)}
        if case.victim is not None and case.victim.secret:
            nodes, place = goal.pairs.unique(return_inverse=True)
            answers = case.victim.blind().predict_proba(nodes).double()
            nulls["empty_graph"] = Reconstruction(link_scores(answers, place, "correlation"), goal.target)
        return nulls

    def units(self, case: Case, goal: EdgesGoal) -> Sequence[str]:
        """Return both nodes of every pair."""
        return [f"{low}-{high}" for low, high in goal.pairs.tolist()]

    def sheet(
        self,
        spec: InputSpec,
        units: Sequence[str],
        truth: EdgesTruth,
        result: Reconstruction,
        control: Reconstruction | None,
    ) -> Sheet:
        """Return tenths of the pairs, from those that attack and control are surest of, and how many are linked."""
        shown = [ranked(one) for one in (result, control) if one is not None]
        rows = []
        for tenth, parts in enumerate(zip(*(order.tensor_split(TARGETS) for order in shown), strict=True)):
            if not len(parts[0]):
                continue
            said = [f"{int(truth.linked[part].sum())} of {len(part)}" for part in parts]
            first = int(parts[0][0])
            true = "linked" if truth.linked[first] else "not linked"
            pair = f"{units[first]}: {true}, {float(result.values[first]):.3g}"
            name = f"{100 * tenth // TARGETS} % to {100 * (tenth + 1) // TARGETS} %"
            rows.append(SheetRow(name, [said[0], said[1] if control is not None else None, pair]))
        return Sheet(["recovered: linked", "control: linked", "private: a pair, and how sure the attack is"], rows)


def ranked(result: Reconstruction) -> Tensor:
    """Return the pairs from the surest to the least sure, those without an answer last."""
    return result.values.double().where(~result.missing, -torch.inf).argsort(descending=True, stable=True)
