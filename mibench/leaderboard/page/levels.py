"""The settings of a defense from weak to strong, and in what attackers of one name differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, cast

import yaml

from mibench.card import DefenseCard
from mibench.leaderboard.eligible import baseline
from mibench.leaderboard.groups import Group
from mibench.leaderboard.page.names import card_in

#: Blocks of a configuration that make an attacker.
ATTACKER = ("attack", "prior", "knowledge")


def defense_level(options: Iterable[str]) -> str:
    """Return what of a defense differs from its defaults; empty where nothing does.

    >>> defense_level(["attack.steps=3", "defense.alpha=0.1", "defense.options.bido.a1=2", "defense.full=true"])
    'alpha 0.1, bido a1 2, full'
    """
    words = (word.removeprefix("defense.").removeprefix("options.") for word in options if word.startswith("defense."))
    return ", ".join(_option(word) for word in words)


def _option(word: str) -> str:
    key, _, value = word.partition("=")
    return _said(key.replace(".", " "), yaml.safe_load(value) if value in ("true", "false", "null") else value)


def _said(name: str, value: Any) -> str:
    """Return an option in words.

    >>> _said("full", True), _said("cap", None), _said("k", 3)
    ('full', 'no cap', 'k 3')
    """
    if value is True:
        return name
    return f"no {name}" if value is False or value is None else f"{name} {value}"


def strengths(groups: Sequence[Group], levels: Mapping[str, str]) -> dict[str, int]:
    """Return by id how strong a group's setting of its defense is among all given ones: 0 for the weakest.

    Order is that of the card's option of strength; settings that do not differ in it stand in the order of their words.

    Args:
        groups: Groups of one defense.
        levels: By id, the words of :func:`defense_level`.
    """
    keys = {one.group_id: (_strength(one), levels[one.group_id]) for one in groups}
    places = {key: place for place, key in enumerate(sorted(set(keys.values())))}
    return {group: places[key] for group, key in keys.items()}


def _strength(group: Group) -> float:
    """Return the value of the option of strength, larger for stronger; -infinity at a baseline, off or unknown."""
    if baseline(group):
        return -math.inf
    card = defense_card(group)
    value = group.config["defense"].get(card.strength) if card and card.strength else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return -math.inf
    return -float(value) if card and card.stronger == "lower" else float(value)


def defense_card(group: Group) -> DefenseCard | None:
    """Return the card of a group's defense; None where it cannot be read today."""
    return cast(DefenseCard | None, card_in(group.config, "defense"))


def adaptive(group: Group) -> bool:
    """Whether the attacker knows the defense: options of attack or knowledge are those that its card names for that."""
    card = defense_card(group)
    return any(_granted(group.config, asked) for asked in _asked(card.adaptive if card else ()))


@cache
def _asked(adaptive: tuple[str, ...]) -> tuple[tuple[tuple[str, Any], ...], ...]:
    """Return of every attacker of a card the options by which it is told from others, and their values."""
    told = (tuple(word.partition("=")[::2] for word in words.split() if "." in word) for words in adaptive)
    return tuple(tuple((key, yaml.safe_load(value)) for key, value in one) for one in told if one)


def _granted(config: Mapping[str, Any], asked: Iterable[tuple[str, Any]]) -> bool:
    return all(_at(config, key) == value for key, value in asked)


def _at(config: Mapping[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def attacker(group: Group) -> str:
    """Return what the attacker is, as text that is equal for equal ones."""
    return repr(list(_leaves(group)))


def usual(groups: Sequence[Group]) -> str:
    """Return the attacker of one name that a table shows: who met the most defenses, then on the most seeds.

    Of equal ones it is the one with the shortest configuration.
    """
    met: dict[str, set[str]] = {}
    seeds: Counter[str] = Counter()
    for one in groups:
        known = attacker(one)
        met.setdefault(known, set()).add(one.facts["defense"])
        seeds[known] = max(seeds[known], len(one.cells))
    return min(met, key=lambda known: (-len(met[known]), -seeds[known], len(known), known))


def attack_levels(groups: Sequence[Group], base: str) -> dict[str, str]:
    """Return by id in what each attacker of one name differs from the usual one (``base``); empty for that one."""
    plain = dict(_leaves(next(one for one in groups if attacker(one) == base)))
    return {one.group_id: ", ".join(_differences(dict(_leaves(one)), plain)) for one in groups}


def _differences(own: Mapping[str, Any], plain: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted({*own, *plain}):
        value, usual_value = own.get(key), plain.get(key)
        if value == usual_value or (not value and not usual_value and not isinstance(value, int | float)):
            continue
        axis, _, name = key.partition(".")
        if axis == "prior" and name != "name" and own.get("prior.name") != plain.get("prior.name"):
            continue  # another prior has other options
        if name.rpartition(".")[2] in ("_target_", "access"):
            continue
        yield _said("prior" if name == "name" else name.replace(".", " ").replace("_", " "), value)


def _leaves(group: Group) -> Iterator[tuple[str, Any]]:
    for axis in ATTACKER:
        yield from _flat(group.config.get(axis) or {}, axis)


def _flat(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in sorted(node.items()):
        if type(value) is dict:  # as JSON gives it, which is quicker to ask than for any mapping
            yield from _flat(value, f"{prefix}.{key}")
        else:
            yield f"{prefix}.{key}", value
