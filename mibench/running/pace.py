"""How long the attack of a cell searches: as its options say, or scaled to equal victim gradients."""

from __future__ import annotations

import copy
import logging
from functools import cached_property
from typing import Any

from mibench.attacks.base import AttackResult
from mibench.data import Population
from mibench.errors import UserError
from mibench.planning.length import fitting, length_of, probes, with_length
from mibench.planning.plan import Plan
from mibench.running.adversary import Adversary
from mibench.settings.base import Observation
from mibench.settings.victim import Victim

log = logging.getLogger("mibench")

#: Accesses that give no gradient of the victim.
WITHOUT_GRADIENT = ("scores", "labels", "explanations", "generate", "none")

#: What an attacker, or its cell, keeps that depends on the options of its attack.
OF_ONE_ATTACK = ("observation", "scaled", "paced", "result", "control", "aligned", "checked", "notes")


class Paced(Adversary):
    """The attacker of one cell, whose attack searches as long as ``budget.gradients`` allows where that is set."""

    def with_plan(self, plan: Plan) -> Paced:
        """Return an attacker whose attack has other options; dataset and models are this one's."""
        other = copy.copy(self)
        other.plan, other.config, other.method = plan, plan.config, plan.part("attack").make()
        for name in OF_ONE_ATTACK:
            other.__dict__.pop(name, None)
        return other

    @cached_property
    def scaled(self) -> dict[str, int]:
        """The options of the attack's length as they were scaled to ``budget.gradients``; empty where they were not.

        An attack that takes no gradient of the victim, or as many at every length, is left as it is.

        Raises:
            UserError: If the budget does not suffice for the shortest search.
        """
        most = self.config["budget"]["gradients"]
        if most is None or self.plan.access in WITHOUT_GRADIENT:
            return {}
        if not (length := length_of(self.config["attack"])):
            return {}
        tried = probes(length)
        probed = {"": self._gradients(tried[""])}
        probed |= {name: self._gradients(tried[name]) if probed[""] else 0 for name in length}
        if set(probed.values()) == {probed[""]}:
            return {}
        found = fitting(length, probed, most)
        if found is None:
            raise UserError(
                f"budget.gradients={most} is too small: one step of attack '{self.plan.cards.attack.name}' takes "
                f"{probed['']} victim gradients here; raise it to that at the least."
            )
        log.info("attack    budget.gradients=%d: %s", most, in_words(found))
        return found

    def _gradients(self, length: dict[str, int]) -> int:
        """Return the victim gradients that the attack takes at a length; the short attack is run, and stored."""
        short = self.with_plan(with_length(self.plan, length))
        return gradients_of(short.attack(self.victim, self.split.private, "probe"))

    @cached_property
    def paced(self) -> Paced:
        """The attacker at the length that is run: this one where nothing is scaled."""
        return self.with_plan(with_length(self.plan, self.scaled)) if self.scaled else self

    def attack(
        self, victim: Victim, population: Population, label: str, seen: Observation | None = None, other: Any = None
    ) -> AttackResult:
        """Run the attack on one victim, at the length that is run."""
        if self.paced is not self:
            return self.paced.attack(victim, population, label, seen, other)
        return super().attack(victim, population, label, seen, other)

    def pace_notes(self) -> list[str]:
        """Return what a reader must know of ``budget.gradients``; nothing where it is not set."""
        most = self.config["budget"]["gradients"]
        if most is None:
            return []
        taken = gradients_of(self.result)
        if not self.scaled:
            why = "takes no gradient of the victim" if not taken else f"takes {taken} victim gradients at every length"
            return [f"budget.gradients={most} did not change the attack, which {why}."]
        return [
            f"The attack was scaled to budget.gradients={most}: {in_words(self.scaled)} "
            f"(before: {in_words(length_of(self.config['attack']))}); it took {taken}."
        ]


def gradients_of(result: AttackResult) -> int:
    """Return the number of examples for which an attack took a gradient of the victim."""
    return sum(result.ledger["gradients"].values())


def in_words(length: dict[str, int]) -> str:
    """Return a length as a command line would set it.

    >>> in_words({"epochs": 2, "base.iterations": 5})
    'attack.epochs=2, attack.base.iterations=5'
    """
    return ", ".join(f"attack.{name}={steps}" for name, steps in length.items())
