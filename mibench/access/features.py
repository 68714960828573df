"""What a split client sends, with what is known of its encoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor, nn

from mibench.access.base import View, counted_copy
from mibench.access.ledger import Ledger
from mibench.data import InputSpec
from mibench.errors import NotGrantedError
from mibench.model import Classifier
from mibench.precision import computing

if TYPE_CHECKING:
    from mibench.card import AttackCard

Part = TypeVar("Part")

#: What can be known of a client's encoder; whoever has one of these has those before it too.
ENCODERS = ("none", "architecture", "query", "weights")


@dataclass(frozen=True)
class FeaturesView(View):
    """Access ``features``: what a split client sends or an embedding service returns.

    Attributes:
        observed: The intercepted features, shape ``(sends, N, ...)``: each client sends those of its inputs as often.
        held: What the attacker has of the client's encoder, one of :data:`ENCODERS`.
    """

    observed: Tensor
    held: str = "none"
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
        encoder = counted_copy(model, ledger, device).requires_grad_(False).client
        return cls(spec, ledger, device, observed.to(device), "weights", untrained, ask, encoder.eval())

    def limited(self, grants: Mapping[str, Any], card: AttackCard) -> Self:
        """Return the view with no more than the attack needs of the encoder, so that its row says what it had."""
        return self.narrow(grants["encoder"]).narrow(card.encoder or "none")

    def known(self) -> tuple[str, ...]:
        """Return what the attacker has of the client's encoder."""
        return (f"encoder:{self.held}",)

    def narrow(self, held: str) -> Self:
        """Return the same with no more than ``held`` of the client's encoder."""
        held = min(held, self.held, key=ENCODERS.index)
        rank = ENCODERS.index(held)
        return dataclasses.replace(
            self,
            held=held,
            _untrained=self._untrained if rank >= ENCODERS.index("architecture") else None,
            _ask=self._ask if rank >= ENCODERS.index("query") else None,
            _encoder=self._encoder if rank >= ENCODERS.index("weights") else None,
        )

    @property
    def senders(self) -> int:
        """Clients behind one message."""
        return 1

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
        with torch.no_grad(), computing("float32", self.device):
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
                f"knowledge.encoder={level} (now: {self.held})."
            )
        return part
