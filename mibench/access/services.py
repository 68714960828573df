"""A service that answers: scores, labels or explanations, and nothing of the model.

A service computes in float32, whatever the precision of the attack that asks it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn

from mibench.access.base import View
from mibench.entry import argmax_or_abstain
from mibench.precision import computing
from mibench.seeding import derive, generator

if TYPE_CHECKING:
    from mibench.card import AttackCard

T = TypeVar("T")

#: How far apart near-duplicates of an image lie: a quarter of a grey level, enough to be another input.
NEAR = 1e-3


@dataclass(frozen=True)
class ServiceView(View):
    """What views of a service share.

    Attributes:
        repeats: How often the attacker asks about each input; the answers are averaged, which takes random defenses in
            expectation. Images are asked as so many near-duplicates, so that a service which answers the very same
            input the same way does not help itself. Every one counts as a query.
    """

    _ask: Callable[[Tensor], Tensor]
    repeats: int = 1

    def limited(self, grants: Mapping[str, Any], card: AttackCard) -> Self:
        """Return the view with every input asked as often as the cell says."""
        return dataclasses.replace(self, repeats=grants["repeats"])

    def known(self) -> tuple[str, ...]:
        """Return how often each input is asked, where that is more than once."""
        return (f"repeats:{self.repeats}",) if self.repeats > 1 else ()

    def _answers(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the answers ``(N, classes)`` to every repetition of inputs ``(N, ...)``."""
        return self._repeated(x, torch.no_grad()(self._ask))

    def _repeated(self, x: Tensor, ask: Callable[[Tensor], T]) -> Iterator[T]:
        """Yield what ``ask`` answers to every repetition of inputs ``(N, ...)``, each of which is counted."""
        x = x.detach().to(self.device)
        for number in range(self.repeats):
            with self.ledger.answered(len(x)), computing("float32", self.device):
                answer = ask(self._near(x, number) if number else x)
            yield answer

    def _near(self, x: Tensor, number: int) -> Tensor:
        """Return the near-duplicate of that number of every input; of ids and records, which have none, themselves."""
        if not self.spec.ranged:
            return x
        pattern = torch.rand(self.spec.shape, generator=generator(derive(number, "near-duplicate"))).to(x.device)
        return self.spec.boxed(x + NEAR * (self.spec.high - self.spec.low) * (2 * pattern - 1))


@dataclass(frozen=True)
class LabelsView(ServiceView):
    """Access ``labels``: the most probable class of each example, -1 where the service abstains."""

    def query(self, x: Tensor) -> Tensor:
        """Return class ids of shape ``(N,)`` for inputs of shape ``(N, ...)``; of several, the one said most often."""
        said = [argmax_or_abstain(answer) for answer in self._answers(x)]
        if len(said) == 1:
            return said[0]
        votes = nn.functional.one_hot(torch.stack(said) + 1, self.spec.classes + 1)[..., 1:].sum(0)
        return torch.where(votes.sum(1) > 0, votes.argmax(1), -1)


@dataclass(frozen=True)
class ScoresView(ServiceView):
    """Access ``scores``: the probabilities that the victim's service returns, after its output defenses.

    Attributes:
        observed: What it answered to others, one private input each, shape ``(messages, classes)``; None where the task
            asks for no inputs behind answers.
    """

    observed: Tensor | None = field(default=None, kw_only=True)

    def known(self) -> tuple[str, ...]:
        """Return whether answers to others were observed, and how often each input is asked."""
        return (*(() if self.observed is None else ("observed_answers",)), *super().known())

    def query(self, x: Tensor) -> Tensor:
        """Return probabilities of shape ``(N, classes)``; they carry no gradient."""
        answers = list(self._answers(x))
        return answers[0] if len(answers) == 1 else torch.stack(answers).mean(0)

    def narrow(self) -> LabelsView:
        """Return the label-only view of the same victim, on the same account."""
        return LabelsView(self.spec, self.ledger, self.device, self._ask, self.repeats)


@dataclass(frozen=True)
class ExplanationsView(ServiceView):
    """Access ``explanations``: probabilities and a saliency map of the input's shape, both after output defenses.

    Attributes:
        kind: How the service explains: ``gradient`` is the saliency of Simonyan et al. (2014).
    """

    _explain: Callable[[Tensor], tuple[Tensor, Tensor]] = field(kw_only=True)
    kind: str = "gradient"

    def known(self) -> tuple[str, ...]:
        """Return how the service explains, and how often each input is asked."""
        return (f"explanation:{self.kind}", *super().known())

    def query(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities ``(N, classes)`` and saliency maps of the shape of ``x``, both without gradient.

        Of several repetitions both are the means.
        """
        found = zip(*self._repeated(x, self._explain), strict=True)
        scores, saliency = (torch.stack(part).mean(0) if len(part) > 1 else part[0] for part in found)
        return scores.detach(), saliency.detach()


@dataclass(frozen=True)
class GenerateView(ServiceView):
    """Access ``generate``: a service that continues a prompt, after its output defenses."""

    def query(self, prompts: Tensor) -> Tensor:
        """Return the continuations, token ids ``(N, tokens)``, of prompts ``(N, tokens)``."""
        (answer,) = self._answers(prompts)
        return answer
