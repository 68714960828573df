"""The catalogue: the conf folder is the registry, and every entry's card is read without importing the component."""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml

from mibench.card import AttackCard, Card, DefenseCard
from mibench.errors import UnknownNameError, UserError
from mibench.planning.cards import read_card, stacked, vary, wrapped
from mibench.planning.sources import PACKAGE, lineage, source_of, spec_of

AXES = ("dataset", "setting", "target", "prior", "attack", "defense", "metric")


def conf_dir() -> Path:
    """Return the folder of the configuration: inside the installed package, or beside it in a checkout."""
    inside = PACKAGE / "conf"
    return inside if inside.is_dir() else PACKAGE.parent / "conf"


#: Folders of choices outside mibench, searched after its own; set by :func:`search_also`.
_own: tuple[Path, ...] = ()


def search_also(folders: Sequence[str | Path]) -> None:
    """Set the folders that hold choices outside mibench, laid out as its conf folder is, for the whole process.

    Args:
        folders: Paths, ``file://`` addresses or ``pkg://`` packages, as in Hydra's ``hydra.searchpath``.

    Raises:
        UserError: If one is not there.
    """
    global _own
    _own = tuple(dict.fromkeys(_folder(str(one)) for one in folders))


def take_search_path(words: Sequence[str]) -> list[str]:
    """Set the folders that ``--config-dir DIR`` and ``hydra.searchpath=[...]`` name, and return the other words.

    Raises:
        UserError: If one of them is malformed or not there.
    """
    folders: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        option, equals, value = word.partition("=")
        if option in ("--config-dir", "-cd"):
            given = value if equals else next(left, "")
            if not given:
                raise UserError("--config-dir needs a folder: --config-dir DIR.")
            folders.append(given)
        elif option == "hydra.searchpath":
            folders += _listed(word)
        else:
            rest.append(word)
    search_also(folders)
    return rest


def _listed(override: str) -> list[str]:
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        listed = OverridesParser.create().parse_override(override).value()
    except HydraException:
        listed = None
    if not isinstance(listed, list):
        raise UserError(f"Expected a list of folders as in hydra.searchpath=[file:///DIR], but got '{override}'.")
    return [str(one) for one in listed]


def search_path_override() -> list[str]:
    """Return the override that makes Hydra find the choices outside mibench; empty where there are none."""
    folders = ",".join("'" + str(one).replace("'", "\\'") + "'" for one in _own)
    return [f"hydra.searchpath=[{folders}]"] if folders else []


def _folder(place: str) -> Path:
    if place.startswith("pkg://"):
        package = place.removeprefix("pkg://").replace("/", ".")
        found = spec_of(package)
        folders = list(found.submodule_search_locations or []) if found else []
        if not folders:
            raise UserError(f"The package of hydra.searchpath '{place}' cannot be found; is it installed?")
        return Path(folders[0])
    path = Path(place.removeprefix("file://")).expanduser().resolve()
    if not path.is_dir():
        raise UserError(f"There is no configuration folder {path}; give --config-dir a folder laid out as conf/.")
    return path


def conf_dirs() -> tuple[Path, ...]:
    """Return all folders of choices, in the order in which they are searched: mibench's own first."""
    return (conf_dir(), *_own)


def choices(group: str) -> dict[str, Path]:
    """Return the yamls of a configuration group by name; of two with one name the first on the search path counts."""
    found = {file.stem: file for folder in reversed(conf_dirs()) for file in (folder / group).glob("*.yaml")}
    return dict(sorted(found.items()))


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
    """Yield the entries of one axis, sorted by name."""
    for file in choices(axis).values():
        if not file.stem.startswith("_") and (node := _component(axis, file)):
            yield Entry(axis, file.stem, file, node, card_of(node))


def entry(axis: str, name: str) -> Entry:
    """Return one entry.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    file = choices(axis).get(name)
    node = {} if file is None or name.startswith("_") else _component(axis, file)
    if file is None or not node:
        raise UnknownNameError(axis, name, [one.name for one in entries(axis)])
    return Entry(axis, name, file, node, card_of(node))


def card_of(node: Mapping[str, Any]) -> Card:
    """Return the card of a component's configuration block (``name``, ``_target_``, optional ``variant_of``).

    That of an attack with another one as its ``base`` derives from both, that of a defense of several ``parts`` from
    theirs: it bears all their names where these are blocks, as in a cell, and its own where they are names.

    Raises:
        UserError: If the block names no class, or one without a card.
    """
    target = node.get("_target_")
    if not isinstance(target, str) or "." not in target:
        raise UserError(f"The block of '{node.get('name', '?')}' has no _target_ of the form package.module.Class.")
    card = _card(target)
    if isinstance(base := node.get("base"), Mapping) and isinstance(card, AttackCard):
        card = wrapped(card, cast(AttackCard, card_of(base)))
    if isinstance(parts := node.get("parts"), Sequence) and isinstance(card, DefenseCard):
        named = [part for part in parts if isinstance(part, str)]
        blocks = [entry("defense", part).node for part in named] or parts
        card = stacked(card, [cast(DefenseCard, card_of(part)) for part in blocks])
        return card if not named else vary(card, name=node["name"])
    return vary(card, name=node.get("name", card.name), variant_of=node.get("variant_of", ""))


@cache
def _card(target: str) -> Card:
    module, _, name = target.rpartition(".")
    try:
        return read_card(source_of(module), name)
    except (ValueError, OSError, SyntaxError, RecursionError) as error:
        raise UserError(f"_target_ '{target}' cannot be used: {error}") from error


def check_known(axis: str, node: Mapping[str, Any]) -> None:
    """Refuse a block whose class is that of no choice of its axis, and likewise what it wraps and its parts.

    A configuration names the classes that are imported. Those of the catalogue are mibench's own, and those of the
    folders that ``--config-dir`` adds the user's; any other could run anything.

    Raises:
        UserError: Naming the key and the class.
    """
    target, name = node.get("_target_"), node.get("name")
    own = _target(axis, name, conf_dirs()) if isinstance(name, str) else None
    if not isinstance(target, str) or (target != own and target not in _targets(axis, conf_dirs())):
        if odd := next((other for other in AXES if other != axis and target in _targets(other, conf_dirs())), None):
            raise UserError(f"{axis}._target_={target} is no {axis} but a {odd}.")
        raise UserError(
            f"{axis}._target_={target} is the class of no {axis} in the catalogue, and only those are run; choose one "
            f"with {axis}=NAME, or add your own with --config-dir DIR (docs/own_methods.md)."
        )
    if isinstance(base := node.get("base"), Mapping):
        check_known(axis, base)
    for part in node.get("parts") or ():
        if isinstance(part, Mapping):
            check_known(axis, part)


@cache
def _target(axis: str, name: str, _search_path: tuple[Path, ...]) -> Any:
    """Return the class that the yaml of a choice names; None where there is none."""
    file = choices(axis).get(name)
    return None if file is None else _component(axis, file).get("_target_")


@cache
def _targets(axis: str, _search_path: tuple[Path, ...]) -> frozenset[Any]:
    """Return the classes that the choices of an axis name."""
    return frozenset(_target(axis, name, _search_path) for name in choices(axis)) - {None}


@cache
def later_options(target: str) -> dict[str, Any]:
    """Return the options that a class or one that it inherits from gained later (``option(...)``), with their defaults.

    Args:
        target: The class, as ``package.module.Class``; it is read without being imported.
    """
    module, _, name = target.rpartition(".")
    found: dict[str, Any] = {}
    for one in lineage(source_of(module), name):
        for node in one.body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                key, value = node.target.id.rstrip("_"), node.value
                found.pop(key, None)
                if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "option":
                    default = ast.literal_eval(value.args[0])
                    found[key] = list(default) if isinstance(default, tuple) else default  # as a yaml writes it
    return found


def _component(axis: str, file: Path) -> dict[str, Any]:
    """Return the block of ``file`` that holds the component, whatever package the yaml writes to."""
    text = file.read_text(encoding="utf-8")
    content = copy.deepcopy(read_yaml(text))
    if axis == "metric":
        content = content.get(file.stem, {})
    elif isinstance(content.get(axis), dict):
        if not text.startswith("# @package _global_"):
            raise UserError(
                f"{file} nests its block under '{axis}:' without '# @package _global_' on its first line; add that "
                "line, or write the block flat."
            )
        content = content[axis]
    if inner := base_of(axis, file):
        content["base"] = _component(axis, choices(axis)[inner])
    content.pop("defaults", None)
    return content if "_target_" in content else {}


@cache
def read_yaml(text: str) -> dict[str, Any]:
    """Return the content of a yaml, by libyaml where it is there: ten times as fast."""
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}


def defaults_of(file: Path) -> dict[str, str]:
    """Return the named entries of a yaml's defaults list: ``override /prior: wgan_gp``, ``/attack@base: gmi``."""
    listed = read_yaml(file.read_text(encoding="utf-8")).get("defaults", [])
    return {key: name for one in listed if isinstance(one, dict) for key, name in one.items()}


def base_of(axis: str, file: Path) -> str:
    """Return the name of the component that the one of ``file`` wraps, from its defaults list; empty for none."""
    return defaults_of(file).get(f"/{axis}@base", "")
