"""What a reader of the table needs of every group beside its numbers: what may be compared, and what it is called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mibench.card import AttackCard
from mibench.leaderboard.eligible import ineligible
from mibench.leaderboard.groups import Group
from mibench.leaderboard.page.levels import adaptive
from mibench.leaderboard.page.names import card_in, title_in
from mibench.leaderboard.page.views import view_id
from mibench.leaderboard.pictures import may_show

#: The columns that are truths; all others are text.
TRUTHS = ("adaptive", "is_floor", "may_show")


def described(groups: Sequence[Group]) -> dict[str, dict[str, Any]]:
    """Return by column and group id what the table says of a group.

    ``view_id``
        What must be equal to be compared, as ten hexadecimal digits.
    ``adaptive``
        Whether the attacker knows the defense.
    ``is_floor``
        Whether the attack searches nothing.
    ``may_show``
        Whether pictures may stand on a public page.
    ``not_compared``
        Why the setting of the defense is not compared with other defenses; empty where it is.
    ``attack_title``, ``attack_bib``, ``defense_title``, ``defense_bib``
        Names and keys of ``references.bib``, empty where a card cannot be read today.
    ``defense_fidelity``
        What the defense was written from; empty without one.
    """
    cards: dict[tuple[str, str, str], Mapping[str, Any]] = {}
    found: dict[str, dict[str, Any]] = {}
    for one in groups:
        own: dict[str, Any] = {
            "view_id": view_id(one),
            "adaptive": one.facts["defense"] != "none" and adaptive(one),
            "may_show": may_show(one.config),
            "not_compared": ineligible(one),
        }
        for axis in ("attack", "defense"):
            key = (axis, one.facts[axis], str(one.config[axis].get("_target_")))
            if key not in cards:
                cards[key] = _said(one, axis)
            own |= cards[key]
        for name, value in own.items():
            found.setdefault(name, {})[one.group_id] = value
    return found


def _said(group: Group, axis: str) -> dict[str, Any]:
    """Return what the card of a group's attack or defense says."""
    name = group.facts[axis]
    card = card_in(group.config, axis)
    said = {f"{axis}_title": title_in(group.config, axis, name), f"{axis}_bib": card.bib if card else ""}
    if axis == "attack":
        return {**said, "is_floor": isinstance(card, AttackCard) and card.family == "floor"}
    return {**said, "defense_fidelity": card.fidelity if card and name != "none" else ""}
