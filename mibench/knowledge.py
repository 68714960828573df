"""What the attacker brings: public data, a prior trained on them, and the side facts that the threat model grants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mibench.access import Ledger, View, WhiteBoxView
from mibench.data import Examples
from mibench.errors import NotGrantedError
from mibench.model import LatentPrior


@dataclass(frozen=True)
class Knowledge:
    """The attacker's own possessions; nothing in here was made from private data unless a fact says so by name.

    Attributes:
        public_data: Public examples, None where the attack needs none or the dataset has none.
        latent_prior: A generator trained on public data, None where the cell has none.
        facts: Side facts granted in ``conf/`` (``labels``, ``marginals`` ...), by name.
        described: What the attacker was given, in words.
        ensemble: Returns, on an account, views of further models of the same people; None where none are granted.
    """

    public_data: Examples | None = None
    latent_prior: LatentPrior | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    described: tuple[str, ...] = ()
    ensemble: Callable[[Ledger], tuple[WhiteBoxView, ...]] | None = None

    @property
    def public(self) -> Examples:
        """The public examples.

        Raises:
            NotGrantedError: If the cell has none.
        """
        if self.public_data is None:
            raise NotGrantedError(
                "This attack needs public data and the dataset has none; give it some (image_folder: "
                "dataset.public_root=FOLDER or dataset.public_classes=K)."
            )
        return self.public_data

    @property
    def prior(self) -> LatentPrior:
        """The prior trained on public data.

        Raises:
            NotGrantedError: If the cell has none.
        """
        if self.latent_prior is None:
            raise NotGrantedError("This attack needs a prior and the cell has none; set prior=wgan_gp.")
        return self.latent_prior

    def companions(self, view: View) -> tuple[WhiteBoxView, ...]:
        """Return views of the further models of the same people that are granted, on the account of ``view``.

        What is sent through one of them counts as if it were sent through the victim.
        """
        return () if self.ensemble is None else self.ensemble(view.ledger)

    def fact(self, name: str) -> Any:
        """Return a granted side fact.

        Raises:
            NotGrantedError: If the cell does not grant it.
        """
        if name not in self.facts:
            raise NotGrantedError(
                f"This attack needs the fact '{name}', which the cell does not grant; set knowledge.{name}=true."
            )
        return self.facts[name]

    def granted(self, name: str) -> bool:
        """Whether the fact called ``name`` is granted."""
        return name in self.facts

    def names(self) -> tuple[str, ...]:
        """What the attacker was given, for the row's ``knowledge`` column."""
        return self.described
