"""Which settings of a defense are compared with other defenses: neither its baselines nor those that spoil the model.

A baseline is a setting that a card names: it leaves out what protects and keeps the rest of the defense, as a private
training without noise does. A model is spoilt that is right no more often than who names the most frequent class
always; that it leaks little is no merit. Both stay in every table, and say so.
"""

from __future__ import annotations

from typing import Any, cast

from mibench.card import DefenseCard
from mibench.leaderboard.groups import Group
from mibench.leaderboard.page.names import card_in
from mibench.planning.cards import setting_of

#: What is said of a spoilt model behind its setting, and as the reason of a comparison.
SPOILT = "right no more often than naming the most frequent class"

#: What is said of a baseline behind its setting.
BASELINE = "a baseline of the defense"

#: Rounding of shares that stand for counts.
SLACK = 1e-9


def ineligible(group: Group) -> str:
    """Return why a group's setting is not compared with other defenses; empty where it is."""
    return SPOILT if spoilt(group) else BASELINE if baseline(group) else ""


def spoilt(group: Group) -> bool:
    """Whether the victim is right no more often than naming the most frequent class of its test data always.

    Of a model that clients are still training only the accuracy that federated training reaches tells
    (``federated_accuracy``). Where that, or the share of the most frequent class, was not measured, nothing is said.
    """
    utility, chance = group.utility, group.number("target_accuracy", "chance")
    if utility is None or not utility.seeds or chance is None or not chance.seeds:
        return False
    if group.facts["access"] == "gradients" and utility.key[0] == "target_accuracy":
        return False
    return bool(utility.score.value <= chance.score.value + SLACK)


def baseline(group: Group) -> str:
    """Return the baseline that a group's defense stands at, ``gamma=0``; empty where it stands at none."""
    card = cast(DefenseCard | None, card_in(group.config, "defense"))
    if card is None or card.variant_of or not isinstance(card, DefenseCard):
        return ""
    block: dict[str, Any] = group.config["defense"]
    return next(
        (setting_of(option, value) for option, value in card.baselines if option in block and block[option] == value),
        "",
    )
