"""The catalogue: the conf folder is the registry, and every entry's card is read without importing the component."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mibench.card import Card, read_card, vary
from mibench.errors import UnknownNameError, UserError

AXES = ("dataset", "setting", "target", "prior", "attack", "defense", "metric")

PACKAGE = Path(__file__).parent


def conf_dir() -> Path:
    """Returns the folder of the configuration: inside the installed package, or beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


@dataclass(frozen=True)
class Entry:
    """One choice of one axis.

    Attributes:
        axis: The axis.
        name: The choice, as written on the command line.
        file: Its yaml.
        node: The component's block of the yaml, interpolations unresolved.
        card: Its card; a variant bears the variant's name.
    """

    axis: str
    name: str
    file: Path
    node: Mapping[str, Any]
    card: Card


def entries(axis: str) -> Iterator[Entry]:
    """Yields the entries of one axis, sorted by name."""
    for file in sorted((conf_dir() / axis).glob("*.yaml")):
        if not file.stem.startswith("_") and (node := _component(axis, file)):
            yield Entry(axis, file.stem, file, node, card_of(node))


def entry(axis: str, name: str) -> Entry:
    """Returns one entry.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    found = {one.name: one for one in entries(axis)}
    if name not in found:
        raise UnknownNameError(axis, name, found)
    return found[name]


def card_of(node: Mapping[str, Any]) -> Card:
    """Returns the card of a component's configuration block (``name``, ``_target_``, optional ``variant_of``).

    Raises:
        UserError: If the block names no class, or one without a card.
    """
    target = node.get("_target_")
    if not isinstance(target, str) or "." not in target:
        raise UserError(f"The block of '{node.get('name', '?')}' has no _target_ of the form package.module.Class.")
    card = _card(target)
    return vary(card, name=node.get("name", card.name), variant_of=node.get("variant_of", ""))


@cache
def _card(target: str) -> Card:
    module, _, name = target.rpartition(".")
    try:
        return read_card(_source(module), name)
    except (ValueError, OSError) as error:
        raise UserError(f"_target_ '{target}' cannot be used: {error}") from error


def _source(module: str) -> Path:
    if module.startswith("mibench."):
        return PACKAGE.joinpath(*module.split(".")[1:]).with_suffix(".py")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or found.origin is None:
        raise UserError(f"The module '{module}' cannot be found; is it installed, or on PYTHONPATH?")
    return Path(found.origin)


def _component(axis: str, file: Path) -> dict[str, Any]:
    """Returns the block of ``file`` that holds the component, whatever package the yaml writes to."""
    text = file.read_text(encoding="utf-8")
    content = yaml.safe_load(text) or {}
    if axis == "metric":
        content = content.get(file.stem, {})
    elif isinstance(content.get(axis), dict):
        if not text.startswith("# @package _global_"):
            raise UserError(
                f"{file} nests its block under '{axis}:' without '# @package _global_' on its first line; add that "
                "line, or write the block flat."
            )
        content = content[axis]
    return content if "_target_" in content else {}
