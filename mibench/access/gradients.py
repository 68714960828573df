"""Views: all of a victim that an attacker ever sees, one frozen class per access level, every query counted.

Stronger views narrow to weaker ones (``white_box -> scores -> labels``) and never widen.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mibench.access.double_backward import has_large_convolutions, lean_convolutions
from mibench.data import InputSpec
from mibench.errors import BudgetExhausted, NotGrantedError, QueryRefused
from mibench.model import Classifier, named
from mibench.seeding import derive, generator

Found = TypeVar("Found")
Part = TypeVar("Part")

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
        """Add ``examples`` to the current phase.

        Raises:
            BudgetExhausted: If they would exceed the budget; nothing is charged then.
        """
        if self.budget is not None and self.queries + examples > self.budget:
            raise BudgetExhausted(f"The attack's budget of {self.budget} queries is spent.")
        self._queries[self.phase] += examples
        self._gradients[self.phase] += examples * gradient

    def state(self) -> dict[str, dict[str, int]]:
        """Return the counts as plain data, for a manifest."""
        return {"queries": dict(self._queries), "gradients": dict(self._gradients)}

    @contextmanager
    def answered(self, examples: int) -> Iterator[None]:
        """Charge examples that the service is asked inside the block; what it refuses is not counted as a query."""
        self.charge(examples, gradient=False)
        try:
            yield
        except QueryRefused:
            self._queries[self.phase] -= examples
            raise

    def affords(self, state: Mapping[str, Mapping[str, int]]) -> bool:
        """Whether the budget has room for the counts of an earlier run."""
        return self.budget is None or self.queries + sum(state["queries"].values()) <= self.budget

    def replay(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Add the counts of an earlier run, so that a cached result costs what the cold one did."""
        for phase in PHASES:
            self._queries[phase] += state["queries"][phase]
            self._gradients[phase] += state["gradients"][phase]

    def restore(self, state: Mapping[str, Mapping[str, int]]) -> None:
        """Put the counts where they stood when a run was interrupted that now goes on."""
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
        """Book the queries made inside the block under ``prepare``, ``initialise``, ``optimise`` or ``select``."""
        before, self.ledger.phase = self.ledger.phase, name
        try:
            yield
        finally:
            self.ledger.phase = before


@dataclass(frozen=True)
class NoView(View):
    """Access ``none``: nothing but the public facts."""


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

    def _answers(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the answers ``(N, classes)`` to every repetition of inputs ``(N, ...)``."""
        x = x.detach().to(self.device)
        for number in range(self.repeats):
            with self.ledger.answered(len(x)), torch.no_grad():
                answer = self._ask(self._near(x, number) if number else x)
            yield answer

    def _near(self, x: Tensor, number: int) -> Tensor:
        """Return the near-duplicate of that number of every image; records, which have no such thing, as they are."""
        if self.spec.modality != "image":
            return x
        pattern = torch.rand(self.spec.shape, generator=generator(derive(number, "near-duplicate"))).to(x.device)
        return (x + NEAR * (2 * pattern - 1)).clamp(0, 1)


@dataclass(frozen=True)
class LabelsView(ServiceView):
    """Access ``labels``: the most probable class of each example, -1 where the service abstains."""

    def query(self, x: Tensor) -> Tensor:
        """Return class ids of shape ``(N,)`` for inputs of shape ``(N, ...)``; of several, the one said most often."""
        said = [named(answer) for answer in self._answers(x)]
        if len(said) == 1:
            return said[0]
        votes = nn.functional.one_hot(torch.stack(said) + 1, self.spec.classes + 1)[..., 1:].sum(0)
        return torch.where(votes.sum(1) > 0, votes.argmax(1), -1)


@dataclass(frozen=True)
class ScoresView(ServiceView):
    """Access ``scores``: the probabilities that the victim's service returns, after its output defenses."""

    def query(self, x: Tensor) -> Tensor:
        """Return probabilities of shape ``(N, classes)``; they carry no gradient."""
        answers = list(self._answers(x))
        return answers[0] if len(answers) == 1 else torch.stack(answers).mean(0)

    def narrow(self) -> LabelsView:
        """Return the label-only view of the same victim, on the same account."""
        return LabelsView(self.spec, self.ledger, self.device, self._ask, self.repeats)


@dataclass(frozen=True)
class ExplanationsView(View):
    """Access ``explanations``: probabilities and a saliency map of the input's shape."""

    _explain: Callable[[Tensor], tuple[Tensor, Tensor]]

    def query(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities ``(N, classes)`` and saliency maps of the shape of ``x``, both without gradient."""
        with self.ledger.answered(len(x)):
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
        """Return a view on a frozen copy of ``model``."""
        frozen = _counted_copy(model, ledger, device)
        return cls(spec, ledger, device, frozen.requires_grad_(False))

    def logits(self, x: Tensor) -> Tensor:
        """Return logits of shape ``(N, classes)``, differentiable in ``x``."""
        logits: Tensor = self.model(x)
        return logits

    def logits_and_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits ``(N, classes)`` and penultimate features ``(N, F)`` from one forward pass."""
        logits, blocks = self.model.forward_with_blocks(x)
        return logits, self.model.pool(blocks[-1])

    def narrow(self) -> ScoresView:
        """Return the scores of the same module, on the same account (output defenses are not on a white-box path)."""
        model, view = self.model, self

        def ask(x: Tensor) -> Tensor:
            with uncounted(view.ledger):
                scores: Tensor = model(x).softmax(1)
            return scores

        return ScoresView(self.spec, self.ledger, self.device, ask)


@dataclass(frozen=True)
class LocalTraining:
    """How a client makes its update: gradient steps of size ``lr`` over its examples in their order, epoch after epoch.

    Attributes:
        epochs: Passes over the examples.
        batch_size: Examples of one step; 0 for all of them.
        lr: Step size; of no effect where there is one step, whose gradient is shared itself.
    """

    epochs: int = 1
    batch_size: int = 0
    lr: float = 0.1

    def steps(self, examples: int) -> int:
        """Return the number of steps over ``examples`` examples."""
        return self.epochs * math.ceil(examples / (self.batch_size or examples))

    def batches(self, examples: int) -> list[slice]:
        """Return the examples of every step in turn."""
        size = self.batch_size or examples
        return [slice(first, first + size) for first in range(0, examples, size)] * self.epochs


@dataclass(frozen=True)
class Transcript:
    """What an eavesdropper on all uploads has gathered before the attacked round.

    Attributes:
        start: The model as it was broadcast before round 0, with batch norm as clients use it.
        rounds: Of every round the clients' messages (parameter name -> tensor), as they were sent.
        lr: The server's step size along their mean.
    """

    start: Classifier
    rounds: Sequence[Sequence[Mapping[str, Tensor]]]
    lr: float


def mean_update(updates: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the true mean of several clients' messages."""
    return {name: torch.stack([one[name] for one in updates]).mean(0) for name in updates[0]}


def server_step(model: nn.Module, sent: Sequence[Mapping[str, Tensor]], lr: float) -> None:
    """Move parameters against the mean of what the clients sent, and set buffers that were sent to their mean."""
    moving = dict(model.named_parameters())
    tensors = moving | dict(model.named_buffers())
    with torch.no_grad():
        for name, mean in mean_update(sent).items():
            if name in moving:
                tensors[name].sub_(mean.to(tensors[name].device) * lr)
            else:
                tensors[name].copy_(mean)


@dataclass(frozen=True)
class GradientsView(View):
    """Access ``gradients``: the updates the server receives, and the global model that produced them.

    Attributes:
        model: The global model before the attacked round; its parameters accept gradients of the second order and
            must be differentiated with :func:`torch.autograd.grad` only.
        messages: One mapping of parameter name to tensor per observed update: the gradient of a client's mean
            cross-entropy, or, where clients take several local steps, the parameters before minus those after.
        batch_size: Number of examples behind each message.
        local: How a client makes its update; None where the attacker does not know.
        deltas: Whether the messages are differences of parameters rather than gradients.
        clients: Clients whose mean one message is, each with its share of the examples.
        buffers: Per message the batch-norm buffers that came with it; empty mappings where none did.
        transcript: Returns what was sent in earlier rounds; None where the attacker did not listen.
        client_loss: Returns the mean loss that clients train with, of a model, inputs and class ids, where the attacker
            knows it; what it draws at random is drawn anew each time, so that a search over it takes the expectation.
            None stands for cross-entropy.
    """

    model: Classifier
    messages: Sequence[Mapping[str, Tensor]]
    batch_size: int
    local: LocalTraining | None = LocalTraining()
    deltas: bool = False
    clients: int = 1
    buffers: Sequence[Mapping[str, Tensor]] = ()
    transcript: Callable[[], Transcript] | None = None
    client_loss: Callable[[Classifier, Tensor, Tensor], Tensor] | None = None

    @classmethod
    def of(
        cls,
        model: Classifier,
        messages: Sequence[Mapping[str, Tensor]],
        batch_size: int,
        spec: InputSpec,
        ledger: Ledger,
        device: torch.device,
        **more: Any,
    ) -> GradientsView:
        """Return a view on a copy of ``model`` in evaluation mode; ``more`` are the further attributes."""
        messages = [{name: tensor.to(device) for name, tensor in message.items()} for message in messages]
        return cls(spec, ledger, device, _counted_copy(model, ledger, device), messages, batch_size, **more)

    def with_model(self, model: Classifier) -> GradientsView:
        """Return this view with a copy of ``model``, counted likewise, in place of the global model."""
        return dataclasses.replace(self, model=_counted_copy(model, self.ledger, self.device))

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The trainable parameters by name, in the model's order."""
        return {name: value for name, value in self.model.named_parameters() if value.requires_grad}

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of the global model; ``y`` holds class ids or a distribution per example.

        It is cross-entropy unless the attacker knows another one that clients train with, which takes class ids.
        """
        result: Tensor = self._objective(x, y)
        return result

    def gradient(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the gradient that a client holding ``(x, y)`` would compute, differentiable in ``x`` and ``y``."""
        parameters = self.parameters
        with lean_convolutions() if self._large else nullcontext():
            loss = self.loss(x, y)
        values = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        return dict(zip(parameters, values, strict=True))

    def gradients(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the gradients of several clients at once, differentiable in ``x`` and ``y``.

        Args:
            x: Inputs of ``n`` clients, shape ``(n, batch, ...)``.
            y: Class ids ``(n, batch)`` or distributions ``(n, batch, classes)``.

        Returns:
            Parameter name -> shape ``(n, ...)``.
        """
        if len(x) == 1:  # plain autograd is faster there
            return {name: value[None] for name, value in self.gradient(x[0], y[0]).items()}
        return self._of_each(self._gradient, x, y, 1)

    def gradients_and(
        self, x: Tensor, y: Tensor, read: Callable[[], list[Tensor]]
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Return :meth:`gradients`, and what ``read`` returned after each client's forward pass: one pass for both.

        Args:
            x: Inputs of ``n`` clients, shape ``(n, batch, ...)``.
            y: Class ids ``(n, batch)`` or distributions ``(n, batch, classes)``.
            read: Returns tensors that hooks on :attr:`model` have taken from the forward pass of one client.

        Returns:
            Parameter name -> shape ``(n, ...)``, and of every tensor read a stack of shape ``(n, ...)``.
        """
        if len(x) == 1:
            return self.gradients(x, y), [one[None] for one in read()]
        return self._of_each(partial(self._gradient_and, read), x, y, 1)

    def updates(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return what each of several clients would have sent: see :meth:`gradients`.

        Where clients take several local steps they are unrolled, each differentiable in ``x`` and ``y``.

        Raises:
            NotGrantedError: If clients take several steps and the attacker does not know which.
        """
        if not self.deltas:
            return self.gradients(x, y)
        local = self.known_local
        return self._of_each(lambda parameters, x, y: self._delta(local, parameters, x, y), x, y, local.epochs)

    @property
    def known_local(self) -> LocalTraining:
        """How a client makes its update.

        Raises:
            NotGrantedError: If the attacker does not know.
        """
        if self.local is None:
            raise NotGrantedError(
                "This attack repeats the client's local steps and the cell does not grant their number, size and "
                "learning rate; set knowledge.local_training=true."
            )
        return self.local

    def as_gradients(self) -> list[dict[str, Tensor]]:
        """Return the messages as gradients: a difference of parameters is divided by steps and step size if known."""
        if not self.deltas or self.local is None:
            return [dict(message) for message in self.messages]
        scale = 1 / (self.local.lr * self.local.steps(self.batch_size // self.clients))
        return [{name: value * scale for name, value in message.items()} for message in self.messages]

    def _of_each(self, function: Callable[..., Found], x: Tensor, y: Tensor, passes: int) -> Found:
        """Return ``function(parameters, x, y)`` of every client, stacked; charges the ledger once for all."""
        self.ledger.charge(x.shape[0] * x.shape[1] * passes, gradient=True)
        start = {name: value.detach() for name, value in self.parameters.items()}
        with uncounted(self.ledger):
            if len(x) == 1 or self.client_loss is not None:  # whose operations may know no batching
                alone = [function(start, *one) for one in zip(x, y, strict=True)]
                stacked: Found = tree_map(lambda *values: torch.stack(values), *alone)
                return stacked
            each = torch.func.vmap(function, in_dims=(None, 0, 0), randomness="different")
            found: Found = each(start, x, y)
        return found

    @cached_property
    def _large(self) -> bool:
        return has_large_convolutions(self.model, self.batch_size * math.prod(self.spec.shape[1:]))

    @cached_property
    def _tied(self) -> bool:
        return _shares_tensors(self.model)

    @cached_property
    def _objective(self) -> _Objective:
        return _Objective(self.model, self.client_loss)

    def _gradient(self, parameters: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        return self._gradient_and(list, parameters, x, y)[0]

    def _gradient_and(
        self, read: Callable[[], list[Tensor]], parameters: dict[str, Tensor], x: Tensor, y: Tensor
    ) -> tuple[dict[str, Tensor], list[Tensor]]:
        def loss(parameters: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
            named = {f"model.{name}": value for name, value in parameters.items()}
            value = torch.func.functional_call(self._objective, named, (x, y), tie_weights=self._tied)
            return value, read()

        found: tuple[dict[str, Tensor], list[Tensor]] = torch.func.grad(loss, has_aux=True)(parameters)
        return found

    def _delta(self, local: LocalTraining, start: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return the mean over clients of the difference that each one's steps make; examples are in their order."""
        if self.clients > 1:
            parts = zip(x.chunk(self.clients), y.chunk(self.clients), strict=True)
            each = [self._delta_of_one(local, start, *part) for part in parts]
            return {name: torch.stack([one[name] for one in each]).mean(0) for name in start}
        return self._delta_of_one(local, start, x, y)

    def _delta_of_one(self, local: LocalTraining, start: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
        now = start
        for rows in local.batches(len(x)):
            step = self._gradient(now, x[rows], y[rows])
            now = {name: value - local.lr * step[name] for name, value in now.items()}
        return {name: value - now[name] for name, value in start.items()}


#: What can be known of a client's encoder; whoever has one of these has those before it too.
ENCODERS = ("none", "architecture", "query", "weights")


@dataclass(frozen=True)
class FeaturesView(View):
    """Access ``features``: what a split client sends or an embedding service returns.

    Attributes:
        observed: The intercepted features, shape ``(sends, N, ...)``: each client sends those of its inputs as often.
        known: What the attacker has of the client's encoder, one of :data:`ENCODERS`.
    """

    observed: Tensor
    known: str = "none"
    _untrained: Callable[[int], nn.Module] | None = None
    _ask: Callable[[Tensor], Tensor] | None = None
    _encoder: nn.Module | None = None

    @classmethod
    def of(
        cls,
        model: Classifier,
        observed: Tensor,
        spec: InputSpec,
        ledger: Ledger,
        device: torch.device,
        *,
        ask: Callable[[Tensor], Tensor],
        untrained: Callable[[int], nn.Module],
    ) -> FeaturesView:
        """Return a view with all that can be known of the client's part of ``model``, on a frozen copy.

        Args:
            model: The model, cut.
            observed: The intercepted features.
            spec: Public facts about input and output.
            ledger: The account.
            device: Where the client answers.
            ask: Returns what a client sends for given inputs.
            untrained: Returns the client's part with weights drawn from a seed, never the client's.
        """
        encoder = _counted_copy(model, ledger, device).requires_grad_(False).client
        return cls(spec, ledger, device, observed.to(device), "weights", untrained, ask, encoder.eval())

    def narrow(self, known: str) -> FeaturesView:
        """Return the same with no more than ``known`` of the client's encoder."""
        known = min(known, self.known, key=ENCODERS.index)
        rank = ENCODERS.index(known)
        return dataclasses.replace(
            self,
            known=known,
            _untrained=self._untrained if rank >= ENCODERS.index("architecture") else None,
            _ask=self._ask if rank >= ENCODERS.index("query") else None,
            _encoder=self._encoder if rank >= ENCODERS.index("weights") else None,
        )

    @property
    def features(self) -> Tensor:
        """The mean of what was sent for each input, shape ``(N, ...)``."""
        return self.observed.mean(0)

    @property
    def encoder(self) -> nn.Module:
        """The client's part with its weights, frozen: from inputs to features, before the ``features`` hook.

        Raises:
            NotGrantedError: If the cell does not grant the weights.
        """
        return self._granted(self._encoder, "holds the weights of", "weights")

    def query(self, x: Tensor) -> Tensor:
        """Return what a client sends for inputs of the attacker's choice, shape ``(N, ...)``.

        Raises:
            NotGrantedError: If the cell does not grant queries to the client's encoder.
        """
        ask = self._granted(self._ask, "queries", "query")
        self.ledger.charge(len(x), gradient=False)
        with torch.no_grad():
            return ask(x.detach().to(self.device))

    def untrained(self, seed: int) -> nn.Module:
        """Return the client's part with weights drawn anew, trainable; what is sent through it is not counted.

        Raises:
            NotGrantedError: If the cell does not grant the architecture.
        """
        return self._granted(self._untrained, "knows the architecture of", "architecture")(seed)

    def _granted(self, part: Part | None, what: str, level: str) -> Part:
        if part is None:
            raise NotGrantedError(
                f"The attack {what} the client's encoder, which this cell does not grant; set "
                f"knowledge.encoder={level} (now: {self.known})."
            )
        return part


def _shares_tensors(model: nn.Module) -> bool:
    """Whether two modules share a tensor; a module that has two names (a head of a foreign model) is still one.

    With ties :func:`torch.func.functional_call` swaps a tensor under all its names, which for a module of two names
    leaves the swapped one behind.
    """
    owners: dict[int, set[int]] = {}
    for module in model.modules():
        for value in module.parameters(recurse=False):
            owners.setdefault(id(value), set()).add(id(module))
    return any(len(found) > 1 for found in owners.values())


def _counted_copy(model: Classifier, ledger: Ledger, device: torch.device) -> Classifier:
    duplicate = copy.deepcopy(model).to(device).eval()

    def charge(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        ledger.charge(len(inputs[0]), gradient=inputs[0].requires_grad and torch.is_grad_enabled())

    duplicate.normalise.register_forward_pre_hook(charge)
    return duplicate


class _Objective(nn.Module):
    """What a client descends, as a module of the model, so that it can be called with other parameters."""

    def __init__(self, model: Classifier, loss: Callable[[Classifier, Tensor, Tensor], Tensor] | None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.loss is None:
            return nn.functional.cross_entropy(self.model(x), y)
        return self.loss(self.model, x, y)


@contextmanager
def uncounted(ledger: Ledger) -> Iterator[None]:
    """Let what has been charged already, or is no query, pass through the counted module for free."""
    before = ledger.state(), ledger.budget
    ledger.budget = None
    try:
        yield
    finally:
        ledger._queries, ledger._gradients = before[0]["queries"], before[0]["gradients"]
        ledger.budget = before[1]
