"""Views: all of a victim that an attacker ever sees, one frozen class per access level, every query counted.

Stronger views narrow to weaker ones (``white_box -> scores -> labels``) and never widen.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mibench.data import InputSpec
from mibench.errors import BudgetExhausted
from mibench.model import Classifier

PHASES = ("prepare", "initialise", "optimise", "select")


class Ledger:
    """Counts examples sent through the victim, by phase, and stops the attack when its budget is spent.

    Args:
        budget: The most examples that may be sent, forward or with gradient; None for no limit.
    """

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self.phase = "optimise"
        self._queries = dict.fromkeys(PHASES, 0)
        self._gradients = dict.fromkeys(PHASES, 0)

    @property
    def queries(self) -> int:
        """Examples sent through the victim, with or without a gradient."""
        return sum(self._queries.values())

    @property
    def gradient_evals(self) -> int:
        """Examples for which a gradient was taken."""
        return sum(self._gradients.values())

    def charge(self, examples: int, gradient: bool) -> None:
        """Adds ``examples`` to the current phase.

        Raises:
            BudgetExhausted: If they would exceed the budget; nothing is charged then.
        """
        if self.budget is not None and self.queries + examples > self.budget:
            raise BudgetExhausted(f"The attack's budget of {self.budget} queries is spent.")
        self._queries[self.phase] += examples
        self._gradients[self.phase] += examples * gradient

    def state(self) -> dict[str, dict[str, int]]:
        """Returns the counts as plain data, for a manifest."""
        return {"queries": dict(self._queries), "gradients": dict(self._gradients)}

    def affords(self, state: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether the budget has room for the counts of an earlier run."""
        return self.budget is None or self.queries + sum(state["queries"].values()) <= self.budget

    def replay(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Adds the counts of an earlier run, so that a cached result costs what the cold one did."""
        for phase in PHASES:
            self._queries[phase] += state["queries"][phase]
            self._gradients[phase] += state["gradients"][phase]

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Puts the counts where they stood when a run was interrupted that now goes on."""
        self._queries, self._gradients = dict(state["queries"]), dict(state["gradients"])


@dataclass(frozen=True)
class View:
    """What every view has.

    Attributes:
        spec: Public facts about input and output.
        ledger: The account of queries.
        device: Where the victim answers.
    """

    spec: InputSpec
    ledger: Ledger
    device: torch.device

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Books the queries made inside the block under ``prepare``, ``initialise``, ``optimise`` or ``select``."""
        before, self.ledger.phase = self.ledger.phase, name
        try:
            yield
        finally:
            self.ledger.phase = before


@dataclass(frozen=True)
class NoView(View):
    """Access ``none``: nothing but the public facts."""


@dataclass(frozen=True)
class LabelsView(View):
    """Access ``labels``: the most probable class of each example."""

    _ask: Callable[[Tensor], Tensor]

    def query(self, x: Tensor) -> Tensor:
        """Returns class ids of shape ``(N,)`` for inputs of shape ``(N, ...)``."""
        self.ledger.charge(len(x), gradient=False)
        with torch.no_grad():
            answer = self._ask(x.detach().to(self.device))
        return answer.argmax(1)


@dataclass(frozen=True)
class ScoresView(View):
    """Access ``scores``: the probabilities that the victim's service returns, after its output defenses."""

    _ask: Callable[[Tensor], Tensor]

    def query(self, x: Tensor) -> Tensor:
        """Returns probabilities of shape ``(N, classes)``; they carry no gradient."""
        self.ledger.charge(len(x), gradient=False)
        with torch.no_grad():
            return self._ask(x.detach().to(self.device))

    def narrow(self) -> LabelsView:
        """Returns the label-only view of the same victim, on the same account."""
        return LabelsView(self.spec, self.ledger, self.device, self._ask)


@dataclass(frozen=True)
class ExplanationsView(View):
    """Access ``explanations``: probabilities and a saliency map of the input's shape."""

    _explain: Callable[[Tensor], tuple[Tensor, Tensor]]

    def query(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns probabilities ``(N, classes)`` and saliency maps of the shape of ``x``, both without gradient."""
        self.ledger.charge(len(x), gradient=False)
        scores, saliency = self._explain(x.detach().to(self.device))
        return scores.detach(), saliency.detach()


@dataclass(frozen=True)
class WhiteBoxView(View):
    """Access ``white_box``: the module itself, frozen, in evaluation mode, on a copy of its own.

    Every path from an input through the model (``model(x)``, ``model.features(x)``, ``model.blocks(x)``) is counted,
    because all of them begin with the model's own normalisation.

    Attributes:
        model: The victim's module. Its parameters take no gradients: optimise the input.
    """

    model: Classifier

    @classmethod
    def of(cls, model: Classifier, spec: InputSpec, ledger: Ledger, device: torch.device) -> WhiteBoxView:
        """Returns a view on a frozen copy of ``model``."""
        frozen = _counted_copy(model, ledger, device)
        return cls(spec, ledger, device, frozen.requires_grad_(False))

    def logits(self, x: Tensor) -> Tensor:
        """Returns logits of shape ``(N, classes)``, differentiable in ``x``."""
        logits: Tensor = self.model(x)
        return logits

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits ``(N, classes)`` and penultimate features ``(N, F)`` from one forward pass."""
        logits, blocks = self.model.forward_with_blocks(x)
        return logits, self.model.pool(blocks[-1])

    def narrow(self) -> ScoresView:
        """Returns the scores of the same module, on the same account (output defenses are not on a white-box path)."""
        model, view = self.model, self

        def ask(x: Tensor) -> Tensor:
            with _uncounted(view.ledger):
                scores: Tensor = model(x).softmax(1)
            return scores

        return ScoresView(self.spec, self.ledger, self.device, ask)


@dataclass(frozen=True)
class GradientsView(View):
    """Access ``gradients``: the updates the server receives, and the global model that produced them.

    Attributes:
        model: The global model before the attacked round; its parameters accept gradients of the second order and
            must be differentiated with :func:`torch.autograd.grad` only.
        messages: One mapping of parameter name to tensor per observed client update.
        batch_size: Number of examples behind each message.
    """

    model: Classifier
    messages: Sequence[Mapping[str, Tensor]]
    batch_size: int

    @classmethod
    def of(
        cls,
        model: Classifier,
        messages: Sequence[Mapping[str, Tensor]],
        batch_size: int,
        spec: InputSpec,
        ledger: Ledger,
        device: torch.device,
    ) -> GradientsView:
        """Returns a view on a copy of ``model`` in evaluation mode."""
        messages = [{name: tensor.to(device) for name, tensor in message.items()} for message in messages]
        return cls(spec, ledger, device, _counted_copy(model, ledger, device), messages, batch_size)

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The trainable parameters by name, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns the mean cross-entropy of the global model; ``y`` holds class ids or a distribution per example."""
        return nn.functional.cross_entropy(self.model(x), y)

    def gradient(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Returns the gradient that a client holding ``(x, y)`` would compute, differentiable in ``x`` and ``y``."""
        parameters = self.parameters
        values = torch.autograd.grad(self.loss(x, y), list(parameters.values()), create_graph=True)
        return dict(zip(parameters, values, strict=True))


@dataclass(frozen=True)
class FeaturesView(View):
    """Access ``features``: what a split client sends or an embedding service returns.

    Attributes:
        observed: The intercepted features of shape ``(N, ...)``.
    """

    observed: Tensor
    _ask: Callable[[Tensor], Tensor] | None = None

    def query(self, x: Tensor) -> Tensor:
        """Returns the features of inputs of the attacker's choice.

        Raises:
            NotGrantedError: If the cell does not grant queries to the client's encoder.
        """
        from mibench.errors import NotGrantedError

        if self._ask is None:
            raise NotGrantedError(
                "The attack queries the client's encoder, which this cell does not grant; set knowledge.encoder=query."
            )
        self.ledger.charge(len(x), gradient=False)
        with torch.no_grad():
            return self._ask(x.detach().to(self.device))


def _counted_copy(model: Classifier, ledger: Ledger, device: torch.device) -> Classifier:
    duplicate = copy.deepcopy(model).to(device).eval()

    def charge(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        ledger.charge(len(inputs[0]), gradient=inputs[0].requires_grad and torch.is_grad_enabled())

    duplicate.normalise.register_forward_pre_hook(charge)
    return duplicate


@contextmanager
def _uncounted(ledger: Ledger) -> Iterator[None]:
    """Lets a narrowed view, which has charged already, pass through the counted module once."""
    before = ledger.state(), ledger.budget
    ledger.budget = None
    try:
        yield
    finally:
        ledger._queries, ledger._gradients = before[0]["queries"], before[0]["gradients"]
        ledger.budget = before[1]
