"""From axes to cells: what a grid or a sweep would run and skip, judged on cards before anything heavy is imported."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, cast

from mibench.card import AttackCard, DatasetCard, DefenseCard, PriorCard, SettingCard, TargetCard
from mibench.errors import UserError
from mibench.planning.cards import setting_of
from mibench.planning.catalogue import (
    Entry,
    card_of,
    conf_dirs,
    entries,
    entry,
)
from mibench.planning.choices import choices_of, key_of
from mibench.planning.compatibility import CellCards, compatible

Overrides = tuple[str, ...]

#: Keys that steer a sweep or its plan and are no part of a cell.
SWEEP_KEYS = ("grid", "pack", "cells")


@dataclass(frozen=True)
class Grid:
    """A named study.

    Attributes:
        name: The stem of its yaml; ``none`` for no grid.
        axes: Values of each axis, as on the command line.
        fixed: Overrides that all cells share.
        exclude: Combinations that are left out: a cell is, where every axis of one entry has (one of) its values;
            what was asked for by name on the command line, axis by axis, is not.
        variants: By name, overrides that change the cell together, one variant at a time; they replace fixed ones.
        strengths: Whether a cell is run once for every baseline of its defense and every level of its strength; the
            axis ``defense`` may then say ``all``: ``none`` and every defense whose card has levels, next to which it
            may name others.
        adjust: Blocks as those of ``exclude`` with one key more, ``set``: overrides of the cells that a block matches;
            they replace fixed ones, and a later block's those of an earlier one.
    """

    name: str
    axes: Mapping[str, Sequence[Any]]
    fixed: Sequence[str]
    exclude: Sequence[Mapping[str, Any]]
    variants: Mapping[str, Sequence[str]] = field(default_factory=dict)
    adjust: Sequence[Mapping[str, Any]] = ()
    strengths: bool = False

    def cells(self, given: Sequence[str] = ()) -> list[Overrides]:
        """Return the overrides of every cell; what is ``given`` on the command line wins over the grid."""
        said = {key_of(override): override.partition("=")[2] for override in given}
        axes = {axis: values for axis, values in self.axes.items() if axis not in said}
        if self.strengths and "all" in axes.get("defense", ()):
            every = ["none", *(one.name for one in entries("defense") if _levels(one))]
            axes["defense"] = [*every, *(name for name in axes["defense"] if name not in ("all", *every))]
        found: list[Overrides] = []
        for values in itertools.product(*axes.values(), self.variants or {"": ()}):
            *chosen, variant = values
            for cell in _adapted(dict(zip(axes, chosen, strict=True)), self.fixed, given):
                found += self._worded(cell, said, variant, given)
        return list(dict.fromkeys(found))

    def _worded(
        self, cell: Mapping[str, Any], said: Mapping[str, str], variant: str, given: Sequence[str]
    ) -> list[Overrides]:
        """Return the overrides of a cell at every level of its defense; none where it is left out."""
        named = {"variant": variant, **said, **cell}
        if any(_matches(named, excluded) and not set(excluded) <= set(said) for excluded in self.exclude):
            return []
        adjusted = [
            one
            for block in self.adjust
            if _matches(named, {axis: wanted for axis, wanted in block.items() if axis != "set"})
            for one in block["set"]
        ]
        latest = {key_of(one): one for one in (*self.fixed, *adjusted, *self.variants.get(variant, ()))}
        given = [one for one in given if key_of(one) not in cell]
        own = [one for key, one in latest.items() if key not in {*map(key_of, given), *cell}]
        words = (*own, *(f"{axis}={written(value)}" for axis, value in cell.items()), *given)
        levels = _levels(_entry("defense", choices_of(words)["defense"])) if self.strengths else []
        levels = [level for level in levels if key_of(level) not in said]
        return [(*words, level) for level in levels] or [words]


def written(value: Any) -> str:
    """Return a grid's value as the command line writes it.

    >>> written(None), written(0.5), written("gmi")
    ('null', '0.5', 'gmi')
    """
    return "null" if value is None else str(value)


@dataclass(frozen=True)
class PlannedCell:
    """One cell of a plan.

    Attributes:
        overrides: Its overrides.
        choices: Its choice of every axis.
        reason: Why it cannot be run; empty where it can.
    """

    overrides: Overrides
    choices: Mapping[str, str]
    reason: str


def read_grid(node: Mapping[str, Any]) -> Grid:
    """Return the grid that a composed ``grid`` block describes.

    Raises:
        UserError: If the block is malformed.
    """
    axes, fixed, exclude = node.get("axes") or {}, node.get("fixed") or [], node.get("exclude") or []
    if not isinstance(axes, Mapping) or not all(isinstance(values, Sequence) for values in axes.values()):
        raise UserError(
            f"Expected the axes of grid '{node.get('name')}' to be lists of values; see conf/grid/first.yaml."
        )
    for key, value in (("fixed", fixed), ("exclude", exclude), ("adjust", node.get("adjust") or [])):
        if not isinstance(value, list | tuple):
            raise UserError(f"Expected '{key}' of grid '{node.get('name')}' to be a list, but got {value}.")
    if not all(isinstance(one, str) and "=" in one for one in fixed):
        raise UserError(f"Expected 'fixed' of grid '{node.get('name')}' to be a list of KEY=VALUE, but got {fixed}.")
    if not all(isinstance(one, Mapping) for one in exclude):
        raise UserError(f"Expected 'exclude' of grid '{node.get('name')}' to be a list of blocks, but got {exclude}.")
    variants = node.get("variants") or {}
    if not isinstance(variants, Mapping) or not all(
        isinstance(words, Sequence) and all(isinstance(one, str) and "=" in one for one in words)
        for words in variants.values()
    ):
        raise UserError(
            f"Expected 'variants' of grid '{node.get('name')}' to be named lists of KEY=VALUE, but got {variants}."
        )
    adjust = node.get("adjust") or []
    if not all(
        isinstance(block, Mapping) and all(isinstance(one, str) and "=" in one for one in block.get("set", [""]))
        for block in adjust
    ):
        raise UserError(
            f"Expected 'adjust' of grid '{node.get('name')}' to be a list of blocks with 'set', a list of KEY=VALUE, "
            f"but got {adjust}."
        )
    if not isinstance(strengths := node.get("strengths", False), bool):
        raise UserError(f"Expected 'strengths' of grid '{node.get('name')}' to be true or false, but got {strengths}.")
    return Grid(str(node.get("name", "none")), axes, fixed, exclude, variants, adjust, strengths)


def every_attack(words: Sequence[str]) -> list[str]:
    """Return the words of a sweep with ``attack=worst_case`` replaced by all attacks of ``attack.access``.

    Floors, which look at nothing, and wrappers, whose bases stand there themselves, are left out.

    Raises:
        UserError: If no access is said, or one that no attack works with.
    """
    if "attack=worst_case" not in words:
        return list(words)
    access = next((word.partition("=")[2] for word in words if key_of(word) == "attack.access"), "")
    names = [
        one.name
        for one in entries("attack")
        if access in (card := cast(AttackCard, one.card)).access and "base" not in one.node and not card.variant_of
    ]
    if access in ("", "none") or not names:
        raise UserError(
            f"attack=worst_case stands for all attacks of one access, but attack.access is '{access or 'not set'}'; "
            "set it to white_box, scores, labels, explanations, gradients or features."
        )
    return [f"attack={','.join(names)}" if word == "attack=worst_case" else word for word in words]


def _adapted(cell: dict[str, Any], fixed: Sequence[str], given: Sequence[str]) -> list[dict[str, Any]]:
    """Return a cell with ``attack=adaptive`` as those of the attackers who know of its defense; any other as it is.

    Attackers of another setting, or with another choice of what the cell says, are left out.
    """
    said = {key_of(word): word.partition("=")[2] for word in (*fixed, *given)}
    said |= {key: written(value) for key, value in cell.items()}
    if said.pop("attack", "") != ADAPTIVE:
        return [cell]
    defense = choices_of([f"{key}={value}" for key, value in said.items()])["defense"]
    attackers = [dict(word.split("=", 1) for word in words.split()) for words in _defense_card(defense, said).adaptive]
    return [
        {**cell, **one}
        for one in attackers
        if all(said.get(key, value) == value for key, value in {"setting": CENTRAL, **one}.items())
    ]


def _defense_card(name: str, said: Mapping[str, str]) -> DefenseCard:
    """Return the card of a chosen defense, of several at once where ``said`` names its parts."""
    defense = _entry("defense", name)
    if "defense.parts" not in said or "parts" not in defense.node:
        return cast(DefenseCard, defense.card)
    names = [part.strip() for part in said["defense.parts"].strip("[]").split(",")]
    return cast(DefenseCard, card_of({**defense.node, "parts": [_entry("defense", part).node for part in names]}))


#: What stands, as an attack, for those that know of a cell's defense.
ADAPTIVE = "adaptive"

#: The setting of attackers that name none.
CENTRAL = "central"


def cells_of(grid: Grid, products: Sequence[Sequence[str]]) -> list[Overrides]:
    """Return the cells of a grid under every combination of the command line, without the keys that steer a sweep.

    A grid without axes leaves each combination as the one cell it is.

    Raises:
        UserError: If attackers who know of the defense are asked for, and there are none.
    """
    found = [
        cell
        for given in products
        for cell in grid.cells([override for override in given if key_of(override) not in SWEEP_KEYS])
    ]
    if not found and any(f"attack={ADAPTIVE}" in given for given in products):
        raise UserError(
            "attack=adaptive stands for the attackers who know of a defense, and the cards of these defenses name none "
            "in this setting; docs/defenses.md says which do."
        )
    return found


def plan_cells(cells: Sequence[Overrides]) -> list[PlannedCell]:
    """Return every cell with its choices and the reason why it cannot be run, if any.

    Raises:
        UnknownNameError: If a choice does not exist.
    """
    return [_planned(overrides) for overrides in cells]


def unseeded(planned: PlannedCell) -> Overrides:
    """Return what a cell is but for its seed, which the reason why it cannot be run does not depend on."""
    return tuple(override for override in planned.overrides if key_of(override) != "seed")


def _levels(defense: Entry) -> list[str]:
    """Return what sets a defense to each baseline and level; nothing for a variant, whose scale is its own."""
    card = cast(DefenseCard, defense.card)
    if card.variant_of or not card.levels:
        return []
    swept = [*card.baselines, *((card.strength, level) for level in card.levels)]
    return [f"defense.{setting_of(option, value)}" for option, value in swept]


def _planned(overrides: Overrides) -> PlannedCell:
    choices = choices_of(overrides)
    found = {axis: _entry(axis, name) for axis, name in choices.items()}
    said = {key_of(override): override.partition("=")[2] for override in overrides}
    attack = cast(AttackCard, found["attack"].card)
    if "attack@attack.base" in said and "base" in found["attack"].node:
        base = _entry("attack", said["attack@attack.base"]).node
        attack = cast(AttackCard, card_of({**found["attack"].node, "base": base}))
    batch, rounds = (
        str(said.get(f"setting.{key}", found["setting"].node.get(key))) for key in ("batch_size", "rounds")
    )
    cards = CellCards(
        dataset=cast(DatasetCard, found["dataset"].card),
        setting=cast(SettingCard, found["setting"].card),
        target=cast(TargetCard, found["target"].card),
        attack=attack,
        defense=_defense_card(choices["defense"], said),
        access=said.get("attack.access", found["attack"].node.get("access", attack.access[0])),
        prior=None if choices["prior"] == "none" else cast(PriorCard, found["prior"].card),
        batch_size=int(batch) if batch.isdecimal() else 0,
        rounds=int(rounds) if rounds.isdecimal() else None,
        finished=said.get("target.weights", found["target"].node.get("weights")) not in (None, "", "null"),
    )
    return PlannedCell(overrides, choices, compatible(cards))


def _matches(cell: Mapping[str, Any], excluded: Mapping[str, Any]) -> bool:
    return all(
        axis in cell and written(cell[axis]) in map(written, values if isinstance(values, list | tuple) else [values])
        for axis, values in excluded.items()
    )


@cache
def _found(axis: str, name: str, _search_path: tuple[Path, ...]) -> Entry:
    return entry(axis, name)


def _entry(axis: str, name: str) -> Entry:
    return _found(axis, name, conf_dirs())
