"""Gradient matching as one batched problem: every message and every restart is a row of the same tensors.

A *problem* is one search: one restart for one message. Rows never influence each other, so that the result for a
message does not depend on how many others there are. Each step computes the objective of ``at_once`` rows together
(small models: many, through :func:`torch.func.vmap`; large ones: one, in plain autograd, which is faster there and
needs the memory of one). Rows whose message is matched to ``tolerance``, or whose restart is hopeless, are dropped on
the way; between two such looks nothing waits for the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mibench.access import GradientsView, uncounted
from mibench.optim.gradient_distance import Gradients
from mibench.optim.selection import take_best

#: Returns of some problems the objective that is descended, and the score by which results are compared (lower is
#: better), each of shape ``(n,)``, from the problems and their rows of the variables. What may follow, each of shape
#: ``(n, ...)``, is kept as the result in place of the variables (images in place of a generator's weights).
Objective = Callable[..., tuple[Tensor, ...]]

#: Floating point operations of one problem's forward pass up to which problems are batched on a CPU.
SMALL = 2e7

#: Trainable parameters up to which they are: of more, a gradient per problem is memory traffic and no arithmetic.
FEW = 100_000

#: Problems that are computed together at the most.
TOGETHER = 64


@dataclass(frozen=True)
class Problems:
    """Rows of a search.

    Attributes:
        messages: Number of messages.
        restarts: Searches per message.
        at_once: Rows that are computed together.
    """

    messages: int
    restarts: int
    at_once: int

    @property
    def rows(self) -> Tensor:
        """All problems, those of one message side by side, shape ``(messages * restarts,)``."""
        return torch.arange(self.messages * self.restarts)

    def message(self, rows: Tensor) -> Tensor:
        """Return the message of each problem."""
        return rows // self.restarts


def at_once(view: GradientsView) -> int:
    """Return how many problems are computed together: a function of model, batch and kind of device alone."""
    x = view.spec.blank(view.batch_size, view.device)
    with uncounted(view.ledger), FlopCounterMode(display=False) as counter, torch.no_grad():
        view.model(x)
    forward = counter.get_total_flops()
    if view.device.type == "cpu":
        few = sum(value.numel() for value in view.parameters.values()) <= FEW
        return TOGETHER if few and forward <= SMALL else 1
    return max(1, min(TOGETHER, int(TOGETHER * 50 * SMALL / max(1, forward))))


class Sent:
    """The messages, by problem.

    Args:
        messages: What was sent, one mapping of parameter name to tensor per message.
        problems: The rows of the search.
    """

    def __init__(self, messages: Sequence[Gradients], problems: Problems) -> None:
        self.stacked = {name: torch.stack([one[name] for one in messages]) for name in messages[0]}
        self.problems = problems

    def of(self, rows: Tensor) -> dict[str, Tensor]:
        """Return the messages of ``rows``, shape ``(n, ...)``; one row where all are of the same message."""
        own = self.problems.message(rows)
        first = int(own[0])
        if bool((own == first).all()):
            return {name: value[first : first + 1] for name, value in self.stacked.items()}
        return {name: value[own.to(value.device)] for name, value in self.stacked.items()}


@dataclass
class Found:
    """The best of every problem so far.

    Attributes:
        problems: The rows.
        values: Copies of the variables, or of what the objective keeps of them, each of shape ``(problems, ...)``.
        scores: Their scores, shape ``(problems,)``; infinite until a finite one was met.
    """

    problems: Problems
    values: list[Tensor] = field(default_factory=list)
    scores: Tensor = field(default_factory=lambda: torch.empty(0))

    def offer(self, rows: Tensor, variables: Sequence[Tensor], scores: Tensor) -> None:
        """Take the rows whose score is lower than their best; a NaN never is."""
        total = len(self.problems.rows)
        if not self.values:
            self.values = [variable.detach().new_zeros(total, *variable.shape[1:]) for variable in variables]
            self.scores = scores.new_full((total,), torch.inf)
        if len(rows) == total:
            for position, variable in enumerate(variables):
                self.values[position], best = take_best(self.values[position], self.scores, variable.detach(), scores)
            self.scores = best
            return
        places = rows.to(scores.device)
        for position, variable in enumerate(variables):
            kept = self.values[position]
            chosen, best = take_best(kept[places], self.scores[places], variable.detach(), scores)
            self.values[position] = kept.index_copy(0, places, chosen)
        self.scores = self.scores.index_copy(0, places, best)

    def look(self, objective: Objective, rows: Tensor, variables: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Offer what ``objective`` makes of ``rows`` and their variables, and return its values and gradients."""
        losses, scores, gradients, kept = evaluate(objective, rows, variables, self.problems.at_once)
        self.offer(rows, kept, scores)
        return losses, gradients

    def of_messages(self) -> tuple[list[Tensor], Tensor]:
        """Return each message's best restart: the variables ``(messages, ...)`` and its score ``(messages,)``."""
        table = self.scores.reshape(self.problems.messages, self.problems.restarts)
        scores, restart = table.min(1)
        rows = torch.arange(len(restart), device=restart.device) * self.problems.restarts + restart
        return [value[rows] for value in self.values], scores

    def of_restarts(self) -> tuple[list[Tensor], Tensor]:
        """Return all restarts, for methods that keep each: variables and scores ``(messages, restarts, ...)``."""
        table = (self.problems.messages, self.problems.restarts)
        return [value.unflatten(0, table) for value in self.values], self.scores.reshape(table)


@dataclass(frozen=True)
class Dropping:
    """Which problems are no longer worth a step.

    Attributes:
        tolerance: A message of which one restart has a lower score is done.
        settled: A message of which one restart has a lower score goes on with that one alone.
        halve_at: Shares of the steps after which the worse half of every message's remaining restarts is dropped
            (successive halving: Jamieson and Talwalkar, AISTATS 2016); none keeps all.
        look: Steps between two looks at the tolerance.
    """

    tolerance: float = 0.0
    settled: float = 0.0
    halve_at: Sequence[float] = ()
    look: int = 20

    def survivors(self, found: Found, rows: Tensor, step: int, steps: int) -> Tensor:
        """Return which of ``rows`` go on after ``step`` of ``steps``, a mask on the CPU."""
        halving = any(step == math.ceil(share * steps) for share in self.halve_at) and found.problems.restarts > 1
        if not halving and (step % self.look or max(self.tolerance, self.settled) <= 0):
            return torch.ones(len(rows), dtype=torch.bool)
        scores = found.scores.cpu().reshape(found.problems.messages, -1)
        alive = torch.zeros(scores.numel(), dtype=torch.bool)
        alive[rows] = True
        alive = alive.reshape(scores.shape)
        lowest = scores.nan_to_num(nan=torch.inf).min(1, keepdim=True)
        alive &= lowest.values >= self.tolerance
        first = torch.zeros_like(alive).scatter(1, lowest.indices, True)
        alive &= first | (lowest.values >= self.settled)
        if halving:
            standing = torch.where(alive, scores.nan_to_num(nan=torch.inf), torch.inf).argsort(1).argsort(1)
            alive &= standing < (alive.sum(1, keepdim=True) + 1) // 2
        return alive.flatten()[rows]


def evaluate(
    objective: Objective, rows: Tensor, variables: Sequence[Tensor], at_once: int
) -> tuple[Tensor, Tensor, list[Tensor], list[Tensor]]:
    """Return objective, score, gradients and what is to be kept of every row, ``at_once`` rows at a time."""
    losses, scores, kept = [], [], []
    gradients: list[list[Tensor]] = [[] for _ in variables]
    for part, own in in_parts(rows, variables, at_once):
        loss, score, *result = objective(part, *own)
        for collected, gradient in zip(gradients, torch.autograd.grad(loss.sum(), own), strict=True):
            collected.append(gradient)
        losses.append(loss.detach())
        scores.append(score.detach())
        kept.append([one.detach() for one in result])
    results = [torch.cat(one) for one in zip(*kept, strict=True)] or list(variables)
    return torch.cat(losses), torch.cat(scores), [torch.cat(one) for one in gradients], results


def in_parts(rows: Tensor, variables: Sequence[Tensor], size: int) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """Yield ``size`` rows at a time with their part of the variables, of which gradients can be taken."""
    for first in range(0, len(rows), size):
        part = slice(first, first + size)
        yield rows[part], [one.detach()[part].requires_grad_(True) for one in variables]
