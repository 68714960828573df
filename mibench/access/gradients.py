"""The updates that a federated server receives, and the global model that they are of."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from mibench.access.base import View, counted_copy
from mibench.access.double_backward import has_large_convolutions, lean_convolutions
from mibench.access.ledger import Ledger, uncounted
from mibench.data import InputSpec
from mibench.errors import NotGrantedError
from mibench.model import Classifier

if TYPE_CHECKING:
    from mibench.card import AttackCard

Found = TypeVar("Found")


@dataclass(frozen=True)
class LocalTraining:
    """How a client makes its update: gradient steps of size ``lr`` over its examples, epoch after epoch.

    Where clients draw another order for every later epoch (``setting.reshuffle``), no attacker knows these orders: who
    repeats the steps takes the examples in the order of the first epoch in all of them.

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
        """Return the examples of every step in turn, in one order for all epochs."""
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
            None stands for the model's own objective.
        sealed: Whether only who takes part in the training can open the messages.
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
    sealed: bool = False

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
        return cls(spec, ledger, device, counted_copy(model, ledger, device), messages, batch_size, **more)

    def limited(self, grants: Mapping[str, Any], card: AttackCard) -> Self:
        """Return the view without the facts that the cell does not grant, or the attack does not use.

        Raises:
            NotGrantedError: If messages are sealed and the attacker takes no part.
        """
        if self.sealed and not card.takes_part:
            raise NotGrantedError(
                f"The defense seals messages for those who take part in the training, and attack '{card.name}' does "
                "not; choose an attack whose card says takes_part."
            )

        def may(fact: str) -> bool:
            return bool(grants[fact]) and fact in card.uses

        heard = self.transcript() if self.transcript is not None and "transcript" in card.needs else None
        return dataclasses.replace(
            self,
            local=self.local if may("local_training") else None,
            buffers=self.buffers if may("buffers") else (),
            client_loss=self.client_loss if may("defense_loss") else None,
            transcript=None if heard is None else lambda: heard,
        )

    def known(self) -> tuple[str, ...]:
        """Return the examples behind a message, and what is known of how clients make it."""
        facts = {
            "local_training": self.deltas and self.local is not None,
            "buffers": any(self.buffers),
            "defense_loss": self.client_loss is not None,
            "transcript": self.transcript is not None,
        }
        return (f"points:{self.batch_size}", *(name for name, given in facts.items() if given))

    @property
    def senders(self) -> int:
        """Clients behind one message."""
        return self.clients

    def with_model(self, model: Classifier) -> GradientsView:
        """Return this view with a copy of ``model``, counted likewise, in place of the global model."""
        return dataclasses.replace(self, model=counted_copy(model, self.ledger, self.device))

    def relaxed(self) -> GradientsView:
        """Return this view with a model that takes relaxed inputs (:class:`mibench.entry.Entry`), on the same account.

        The parameters of the entry (a table of embeddings) are left out of its messages and gradients.

        Raises:
            NotGrantedError: If the model has no entry that takes them.
        """
        model = copy.deepcopy(self.model)
        entry = model.entry
        if entry is None:
            raise NotGrantedError("This attack relaxes inputs, and the target has no entry that takes them.")
        entry.relaxing = True
        entry.requires_grad_(False)
        kept = {name for name, value in model.named_parameters() if value.requires_grad}
        messages = [{name: value for name, value in one.items() if name in kept} for one in self.messages]
        return dataclasses.replace(self, model=model, messages=messages)

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


class _Objective(nn.Module):
    """What a client descends, as a module of the model, so that it can be called with other parameters."""

    def __init__(self, model: Classifier, loss: Callable[[Classifier, Tensor, Tensor], Tensor] | None) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        if self.loss is None:
            return self.model.objective.mean(self.model(x), y)
        return self.loss(self.model, x, y)


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
