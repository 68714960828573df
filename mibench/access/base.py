"""What every view has, and the copy of a model through which every path is counted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import nn

from mibench.access.ledger import Ledger
from mibench.data import InputSpec
from mibench.model import Classifier

if TYPE_CHECKING:
    from mibench.card import AttackCard


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

    def limited(self, grants: Mapping[str, Any], card: AttackCard) -> Self:
        """Return the view without what the cell does not grant, or the attack of ``card`` does not use.

        Args:
            grants: The block ``knowledge`` of the configuration.
            card: The attack's card.
        """
        return self

    def known(self) -> tuple[str, ...]:
        """Return what the view tells beyond what its access is, in the words of a row's column ``knowledge``."""
        return ()

    @property
    def senders(self) -> int:
        """Clients behind one message; 0 where none are sent."""
        return 0

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


def counted_copy(model: Classifier, ledger: Ledger, device: torch.device) -> Classifier:
    """Return a copy of ``model``, without its secrets, whose every path from an input charges ``ledger``."""
    duplicate = model.blind().to(device).eval()

    def charge(_module: nn.Module, inputs: tuple[Any, ...]) -> None:
        ledger.charge(len(inputs[0]), gradient=inputs[0].requires_grad and torch.is_grad_enabled())

    duplicate.normalise.register_forward_pre_hook(charge)
    return duplicate
