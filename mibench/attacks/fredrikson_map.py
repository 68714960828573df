r"""Attribute inference by maximum a posteriori (Fredrikson et al., Privacy in Pharmacogenetics, USENIX Security 2014).

The attacker may query the model, holds a record without its sensitive column :math:`x_1`, and knows the true response
:math:`y` and the marginal frequencies :math:`P_j` of every column in the training population. Each value :math:`v` is
tried, completions :math:`u` of other unknown columns are summed over, and the most probable value is the answer:

.. math:: \hat v = \arg\max_v \; P_1(v) \sum_u \pi\big(y, f(v, x_K, u)\big) \prod_j P_j(u_j)

:math:`\pi` is the model's error statistic: the confidence :math:`f_y` (``confidence``), or the entry
:math:`C[y, \hat y]` of its published confusion matrix, rows summing to one (``confusion``, as for the classifiers of
Fredrikson et al., CCS 2015). The Gaussian :math:`N(y; f, \sigma^2)` of a regression is the confidence of the classifier
whose classes are narrow bins of the response, so it is no option of its own. Sums are taken in log space. Values of
equal score are parted by the prior: where every score is zero, the most frequent value is the answer.

No official code exists. Inferred: the confidence as :math:`\pi`, numeric columns completed from the midpoints of their
four equally frequent bins, and, where completions are too many to enumerate, seeded draws from the marginals that all
records and values share.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from mibench.access import ScoresView
from mibench.attacks.base import Attack, AttackCard, AttributeGoal, Knowledge, Reconstruction
from mibench.data import InputSpec
from mibench.options import Count

#: Log scores this near are equal: probabilities come in single precision.
TIE = 1e-6


class FredriksonMap(Attack[ScoresView, AttributeGoal]):
    """The most probable value of the sensitive column under model, marginals and response."""

    card = AttackCard(
        name="fredrikson_map",
        title="Fredrikson MAP",
        modalities=("tabular",),
        year=2014,
        fidelity="reconstruction",
        family="output matching",
        task="attribute",
        access=("scores",),
        needs=("marginals",),
        uses=("confusion",),
    )
    length = ()

    error_model: Literal["confidence", "confusion"] = "confidence"
    """``confidence`` or ``confusion`` (which needs ``knowledge.confusion=true``)."""
    max_completions: Count = 10000
    """Most completions of other unknown columns that are enumerated; of more, so many are drawn from the marginals."""
    batch: Count = 8192
    """Most completed records per query."""

    def log_error(self, view: ScoresView, knowledge: Knowledge, records: Tensor, responses: Tensor) -> Tensor:
        """Return log pi(y, f(x)) of complete records ``(M, columns)`` and responses ``(M,)``, shape ``(M,)``."""
        scores = view.query(records)
        if self.error_model == "confusion":
            published: Tensor = knowledge.fact("confusion").to(scores.device)
            return published[responses, scores.argmax(1)].double().log()
        return scores.gather(1, responses[:, None])[:, 0].double().log()

    def reconstruct(
        self, view: ScoresView, knowledge: Knowledge, goal: AttributeGoal, networks: nn.ModuleDict
    ) -> Reconstruction:
        """Return the inferred category code of every record; records the budget left unasked are missing."""
        marginals = [column.double() for column in knowledge.fact("marginals")]
        prior = marginals[goal.column].log().to(view.device)
        completions, weights = self._completions(view.spec, goal, marginals)
        completions, weights = completions.to(view.device), weights.to(view.device)
        records, responses = goal.records.to(view.device), goal.responses.to(view.device)
        guesses = torch.zeros(len(records), dtype=torch.long, device=view.device)
        answered = torch.zeros(len(records), dtype=torch.bool, device=view.device)

        def so_far() -> Reconstruction:
            return Reconstruction(guesses, torch.arange(len(records)), valid=answered)

        self.keep(so_far)
        at_once = max(1, self.batch // (goal.choices * len(completions)))
        chunks = torch.arange(len(records), device=view.device).split(at_once)
        for step in self.steps(len(chunks)):
            rows = chunks[step]
            asked = complete(records[rows], goal.column, goal.choices, completions)
            known = responses[rows].repeat_interleave(goal.choices * len(completions))
            parts = zip(asked.split(self.batch), known.split(self.batch), strict=True)
            log_pi = torch.cat([self.log_error(view, knowledge, part, y) for part, y in parts])
            guesses[rows] = most_probable(log_pi.reshape(len(rows), goal.choices, -1), prior, weights)
            answered[rows] = True
        return so_far()

    def _completions(self, spec: InputSpec, goal: AttributeGoal, marginals: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return completions ``(U, columns)``, of which only the unknown columns matter, and log weights ``(U,)``."""
        unknown = goal.records.isnan().any(0).tolist()
        values, chances = [torch.zeros(1)] * len(marginals), [torch.ones(1).double()] * len(marginals)
        for index, published in enumerate(marginals):
            if unknown[index] and index != goal.column:
                categorical = spec.columns[index].categorical
                values[index] = torch.arange(len(published)).float() if categorical else published.float()
                chances[index] = published if categorical else torch.full_like(published, 1 / len(published))
        if math.prod(map(len, values)) <= self.max_completions:
            grid = torch.meshgrid(*[torch.arange(len(column)) for column in values], indexing="ij")
            chosen = [index.flatten() for index in grid]
            weights = torch.stack([c[index].log() for c, index in zip(chances, chosen, strict=True)]).sum(0)
        else:
            draws = self.draws(torch.device("cpu"), "completions")
            chosen = [torch.multinomial(c, self.max_completions, replacement=True, generator=draws) for c in chances]
            weights = torch.zeros(self.max_completions).double() - math.log(self.max_completions)
        return torch.stack([value[index] for value, index in zip(values, chosen, strict=True)], 1), weights


def complete(records: Tensor, column: int, choices: int, completions: Tensor) -> Tensor:
    """Return every record with every value of ``column`` and every completion, shape ``(N * choices * U, columns)``.

    Args:
        records: Partial records ``(N, columns)``, unknown entries NaN.
        column: The sensitive column.
        choices: Number of its categories.
        completions: Values ``(U, columns)`` that take the place of NaN.
    """
    partial = records[:, None, None, :]
    filled = torch.where(partial.isnan(), completions.to(records.dtype), partial)
    filled = filled.expand(-1, choices, -1, -1).clone()
    filled[..., column] = torch.arange(choices, device=records.device, dtype=records.dtype)[:, None]
    return filled.flatten(0, 2)


def most_probable(log_pi: Tensor, prior: Tensor, weights: Tensor) -> Tensor:
    """Return the maximum a posteriori values, shape ``(N,)``; equal scores are parted by the prior.

    Args:
        log_pi: Log error statistic of every value and completion, shape ``(N, choices, U)``.
        prior: Log frequency of every value, shape ``(choices,)``.
        weights: Log weight of every completion, shape ``(U,)``.
    """
    scores = prior + torch.logsumexp(log_pi + weights, 2)
    best = scores >= scores.amax(1, keepdim=True) - TIE
    return torch.where(best, prior, -torch.inf).argmax(1)
