"""What travels between clients and server, and the server: honest unless an attack plants one of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from mibench.model import Classifier


@dataclass(frozen=True)
class Sealed:
    """What only who takes part can open.

    Attributes:
        tensors: What is inside, parameter name -> tensor.
    """

    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class Message:
    """One message that the server receives.

    Attributes:
        tensors: Parameter name -> tensor: an update, or the sum of several.
        senders: Clients whose updates are in it.
        weight: What the tensors are divided by to give the mean update.
    """

    tensors: Mapping[str, Tensor] | Sealed
    senders: int = 1
    weight: float = 1.0

    def opened(self) -> dict[str, Tensor]:
        """Return the mean update, as who can open the message reads it."""
        tensors = self.tensors.tensors if isinstance(self.tensors, Sealed) else self.tensors
        return dict(tensors) if self.weight == 1 else {name: value / self.weight for name, value in tensors.items()}


@dataclass(frozen=True)
class Round:
    """One round, as a defense's protocol sees it.

    Attributes:
        number: From 0.
        clients: Clients that began it.
        seed: Seed of the protocol's own draws in this round.
        dropped: Clients whose update never arrives; they took part in the agreements before it.
        state: What the protocol keeps from round to round; the setting stores it.
    """

    number: int
    clients: int
    seed: int
    dropped: frozenset[int] = frozenset()
    state: dict[str, Tensor] = field(default_factory=dict)

    @property
    def present(self) -> list[int]:
        """The clients whose updates arrive, in order."""
        return [client for client in range(self.clients) if client not in self.dropped]


class Server:
    """The server of federated or split learning. This class itself is honest and keeps nothing.

    An attack whose card says ``plants`` returns one of its own (:meth:`mibench.attacks.base.Attack.server`). It acts
    while the victim is trained, and sees no example but through what clients send.
    """

    def broadcast(self, number: int, model: Classifier) -> Classifier:
        """Return the model that clients are sent in round ``number``; the global ``model`` itself is not changed."""
        return model

    def receive(self, number: int, messages: Sequence[Message]) -> None:
        """Is shown what arrived in round ``number``, before the global model takes its step."""

    def returns(self, features: Tensor, y: Tensor, gradient: Tensor) -> Tensor:
        """Return the gradient that a split client is sent for its features.

        Args:
            features: What the client sent, shape ``(N, ...)``.
            y: Class ids, shape ``(N,)``.
            gradient: The honest answer: the gradient of the loss of the server's own part, of the features' shape.
        """
        return gradient


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
