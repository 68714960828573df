"""The contract of a setting."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from mibench.access import Ledger, Server, View
from mibench.card import DefenseCard, SettingCard
from mibench.data import Examples, Population, Split
from mibench.defenses.base import Customer, Defense, DefenseContext
from mibench.options import Options
from mibench.settings.victim import Blueprint, Victim, defender_context, train_central
from mibench.storage.workshop import Workshop
from mibench.training import Training


@dataclass(frozen=True)
class Observation:
    """What the attacker sees, with what lies behind it.

    Attributes:
        view: The view.
        secret: The inputs behind the observation (clients' batches); only the task's truth receives them.
        labels: Class ids of the secret that are known whatever the cell grants; None where none are.
        customer: The attacker as the defense knows it; a new one in every observation.
    """

    view: View
    secret: Examples | None = None
    labels: Tensor | None = None
    customer: Customer = field(default_factory=Customer)


@dataclass(frozen=True, kw_only=True)
class Scene:
    """The parts from which a setting makes a victim.

    Attributes:
        split: The dataset.
        blueprint: Architecture and recipe.
        defense: The defense.
        defense_key: Its configuration where it takes part in training, so that victims are shared where it does not.
        workshop: Store and device.
        seed: The cell's seed.
        learner: The defense's configuration, for what it learns of the finished model.
        server: Who serves the clients: honest, or an attack's own.
        server_key: What identifies an attack's own server; empty for the honest one.
    """

    split: Split
    blueprint: Blueprint
    defense: Defense
    defense_key: Mapping[str, Any]
    workshop: Workshop
    seed: int
    learner: Mapping[str, Any] = field(default_factory=dict)
    server: Server = field(default_factory=Server)
    server_key: Mapping[str, Any] = field(default_factory=dict)

    def context(self, train: Examples) -> DefenseContext:
        """Return what the defense's hooks are given for a victim trained on ``train``."""
        return defender_context(self.split, train, self.workshop, self.seed)

    def train(
        self,
        population: Population,
        key: Mapping[str, Any],
        label: str,
        cut: int | None = None,
        training_kind: Callable[..., Training] = Training,
    ) -> Victim:
        """Return the target trained by one owner: see :func:`mibench.settings.victim.train_central`."""
        return train_central(
            self.blueprint,
            population,
            self.split,
            self.defense,
            self.workshop,
            key,
            self.seed,
            label,
            self.learner,
            cut,
            training_kind,
        )


class Setting(Options, ABC):
    """A setting: trains the victim and grants a view of it."""

    card: ClassVar[SettingCard]
    block: ClassVar[str] = "setting"

    def messages(self, split: Split) -> int:
        """Return how many messages there are to be observed; 0 where the budget decides."""
        return 0

    def inputs_behind(self, split: Split, defense: DefenseCard) -> int:
        """Return the inputs behind one observed message; 0 where no messages are sent."""
        return 0

    @property
    def parts_of_message(self) -> int:
        """Parts of the examples behind one message that are learned one after the other, or by other clients."""
        return 1

    def normalised(self, split: Split, target: Mapping[str, Any]) -> dict[str, Any]:
        """Return a target's options with what the data say of them."""
        return dict(target)

    def described(self, defense: DefenseCard, batch_norm: bool) -> Sequence[str]:
        """Return what a reader must know of how the victim was trained and observed, a sentence each.

        Args:
            defense: The card of the defense.
            batch_norm: Whether the target has batch norm.
        """
        return ()

    @abstractmethod
    def train(self, scene: Scene, population: Population, label: str) -> Victim:
        """Return the victim trained on ``population`` (private, or held-out for the control)."""

    @abstractmethod
    def observe(
        self, scene: Scene, victim: Victim, population: Population, access: str, count: int, ledger: Ledger
    ) -> Observation:
        """Return the view that ``access`` grants, with ``count`` observed messages where messages are sent."""
