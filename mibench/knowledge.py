"""What the attacker brings: public data, a prior trained on them, and the side facts that the threat model grants."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mibench.card import AttackCard
from mibench.errors import NotGrantedError
from mibench.options import Count

if TYPE_CHECKING:  # planning reads the table below without torch
    from mibench.access import Ledger, View, WhiteBoxView
    from mibench.data import Examples
    from mibench.model import LatentPrior


@dataclass(frozen=True)
class Grant:
    """A side fact that the key ``knowledge.NAME`` grants to attackers.

    Attributes:
        kind: The type of its value.
        default: The value in ``conf/cell.yaml``.
        identity: Whether it is part of every ``cell``, or only of one whose attack has a ``use`` for it, so that a
            grant of this kind, added later, changes no other cell.
        words: What it grants, for the documentation.
        use: What a card must say to have a use for it: the grant's name in ``needs`` or ``uses`` (``named``), an
            ``encoder``, or a task.
    """

    kind: Any
    default: Any
    identity: Literal["cell", "use"]
    words: str
    use: str = "named"

    def part_of(self, name: str, card: AttackCard) -> bool:
        """Return whether the grant called ``name`` is part of a cell with the attack of ``card``."""
        met = {"named": name in (*card.needs, *card.uses), "encoder": bool(card.encoder)}
        return self.identity == "cell" or met.get(self.use, card.task == self.use)


#: All side facts that a cell can grant, by name.
GRANTS: Mapping[str, Grant] = {
    "labels": Grant(bool, False, "cell", "the class ids of a client's batch, of a masked image"),
    "local_training": Grant(bool, True, "use", "how clients train: local steps, their size and step size"),
    "lengths": Grant(bool, True, "use", "how many tokens every text of a client's batch has"),
    "buffers": Grant(bool, True, "use", "batch-norm buffers where clients share theirs"),
    "defense_loss": Grant(bool, False, "use", "the loss that a defense gives clients, draws and all"),
    "repeats": Grant(Count, 1, "cell", "how often each query is asked, as near-duplicates, and the answers averaged"),
    "encoder": Grant(
        Literal["weights", "query", "architecture", "none"], "weights", "use", "a split client's encoder", "encoder"
    ),
    "marginals": Grant(bool, True, "cell", "the published frequencies of each column's values"),
    "confusion": Grant(bool, False, "cell", "the victim's published confusion matrix"),
    "companions": Grant(list[str], ["cnn", "lenet"], "use", "more models of the same people"),
    "masked_image": Grant(
        Literal["centre", "face_t"], "centre", "use", "the hidden part of a masked private image", "completion"
    ),
    "known_columns": Grant(list[str] | None, None, "cell", "columns of a record; null: all but the sensitive one"),
}


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
                "This attack needs public data and has none: the dataset has to have some (image_folder: "
                "dataset.public_root=FOLDER or dataset.public_classes=K), and the attack's card has to say "
                "needs=('public',)."
            )
        return self.public_data

    @property
    def prior(self) -> LatentPrior:
        """The prior trained on public data.

        Raises:
            NotGrantedError: If the cell has none.
        """
        if self.latent_prior is None:
            raise NotGrantedError(
                "This attack needs a prior and has none: set prior=wgan_gp; the attack's card has to say "
                "needs=('public', 'prior')."
            )
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
