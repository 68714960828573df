"""What rows, columns and series of a paper are called: an entry, and the options that tell it from others of its name.

Two groups are never one cell of a table. Where several would be, the options in which they differ become part of the
row's or the column's name: ``bido (a1 0.05)`` beside ``bido (a1 0.5)``. Options that differ from today's defaults stand
there too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mibench.leaderboard.compare import AXES, REVISED
from mibench.leaderboard.groups import Group
from mibench.planning.identity import OWN, flat

#: The facts that rows and columns can be, each with the blocks of a configuration that may differ with it: lengths, for
#: instance, follow the budget.
VARYING: Mapping[str, Sequence[str]] = {
    **AXES,
    "dataset": ("dataset",),
    "setting": ("setting",),
    "access": ("attack", "prior", "knowledge"),
    "budget": ("budget", "query_budget", "attack", "prior", "setting", "defense"),
}

#: Returns the options of a group that differ from today's defaults, as ``defense.a1=0.5``.
Options = Callable[[Group], Sequence[str]]

ABSENT = object()


@dataclass(frozen=True, order=True)
class Label:
    """The name of a row, a column or a series.

    Attributes:
        rank: What it is sorted by.
        name: The entry: ``bido``.
        options: What tells it from others of that name: ``a1 0.05``; empty where nothing has to.
    """

    rank: tuple[Any, ...]
    name: str
    options: str = ""

    @property
    def text(self) -> str:
        """The whole name: ``bido (a1 0.05)``."""
        return f"{self.name} ({self.options})" if self.options else self.name


def fact(group: Group, axis: str) -> str:
    """Return what a group has on an axis."""
    return group.facts.get(axis, str(group.config.get(axis, "")))


def labels(
    groups: Sequence[Group], axes: Sequence[str], options: Options, without: Collection[str] = ()
) -> dict[str, tuple[Label, ...]]:
    """Return one label per axis of every group, by its id; no two groups have the same labels.

    Args:
        groups: Groups that differ in what goes with the axes alone.
        axes: Keys of :data:`VARYING`. An option belongs to the axis of its block, else to the first it goes with.
        options: What of a group differs from the defaults.
        without: Options, by dotted key, that are no part of a name; groups that differ in them alone share theirs.
    """
    leaves = {
        one.group_id: {key: value for key, value in leaves_of(one).items() if key not in without} for one in groups
    }
    told: dict[tuple[str, str], dict[str, None]] = {}

    def tell(group: Group, names: Iterable[str]) -> None:
        for name in names:
            block = name.partition(".")[0]
            if owner := next(
                (axis for axis in axes if block == axis or (block in VARYING[axis] and block not in axes)), ""
            ):
                told.setdefault((owner, fact(group, owner)), {})[name] = None

    same: dict[tuple[str, ...], list[Group]] = {}
    for one in groups:
        said = (_leaf(word, leaves[one.group_id]) for word in options(one))
        tell(one, sorted(key for key in said if key not in without))
        same.setdefault(tuple(fact(one, axis) for axis in axes), []).append(one)
    for own in same.values():
        for one in own:
            tell(one, differing([leaves[other.group_id] for other in own]))
    found = {
        one.group_id: tuple(
            _label(fact(one, axis), axis, leaves[one.group_id], list(told.get((axis, fact(one, axis)), ())))
            for axis in axes
        )
        for one in groups
    }
    return found if without else _apart(found)


def leaves_of(group: Group) -> dict[str, Any]:
    """Return the options of a group by dotted key; parts of a defense are named, and revisions count as options."""
    config = {key: node for key, node in group.config.items() if key not in ("seed", "revisions", "convergence")}
    defense = config.get("defense")
    if isinstance(defense, Mapping) and isinstance(defense.get("parts"), list):
        parts = {str(one.get("name")): one for one in defense["parts"] if isinstance(one, Mapping)}
        config["defense"] = {**defense, "parts": parts}
    revisions = zip(REVISED, group.config.get("revisions", ()), strict=False)
    return {**dict(flat(config)), **{f"{axis}.revision": count for axis, count in revisions}}


def differing(leaves: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the keys in which options differ; of a component that is another one, its name alone if that is enough."""
    keys = sorted({key for one in leaves for key in one})
    found = [key for key in keys if len({_written(one.get(key, ABSENT)) for one in leaves}) > 1]
    others = [key.removesuffix("name") for key in found if key.endswith(".name")]
    few = [key for key in found if key.endswith(".name") or not any(key.startswith(block) for block in others)]
    short = {tuple(_written(one.get(key, ABSENT)) for key in few) for one in leaves}
    return few if len(short) == len(leaves) else found


def without_folders(word: str) -> str:
    """Return an option as it may be published: of the user's own files and folders the name alone.

    >>> without_folders("dataset.root='/home/me/faces'"), without_folders("defense.a1=0.5")
    ('dataset.root=faces', 'defense.a1=0.5')
    """
    key, _, value = word.partition("=")
    return f"{key}={Path(value.strip(QUOTES)).name}" if OWN.fullmatch(key.rpartition(".")[2]) else word


QUOTES = "'\""


def _leaf(word: str, leaves: Mapping[str, Any]) -> str:
    """Return the dotted key of ``attack.base=gmi``, that of the name where the option is a whole component."""
    key = word.partition("=")[0]
    return key if key in leaves or f"{key}.name" not in leaves else f"{key}.name"


def _label(name: str, axis: str, leaves: Mapping[str, Any], keys: Sequence[str]) -> Label:
    values = [leaves.get(key, ABSENT) for key in keys]
    options = ", ".join(
        f"{key.removeprefix(f'{axis}.').removesuffix('.name')} {_shown(key, value)}"
        for key, value in zip(keys, values, strict=True)
    )
    return Label((name != "none", name, *(_rank(value) for value in values)), name, options)


def _apart(found: Mapping[str, tuple[Label, ...]]) -> dict[str, tuple[Label, ...]]:
    """Return the labels, with the beginning of the id in the first one where two groups would have the same."""
    times: dict[tuple[str, ...], int] = {}
    for own in found.values():
        key = tuple(one.text for one in own)
        times[key] = times.get(key, 0) + 1
    apart = {}
    for group, own in found.items():
        if times[tuple(one.text for one in own)] > 1:
            said = ", ".join(filter(None, (own[0].options, f"group {group[:8]}")))
            own = (Label((*own[0].rank, (1, 0.0, group)), own[0].name, said), *own[1:])
        apart[group] = own
    return apart


def _written(value: Any) -> str:
    return "" if value is ABSENT else json.dumps(value, sort_keys=True, default=str)


def _shown(key: str, value: Any) -> str:
    if value is ABSENT:
        return "-"
    if isinstance(value, str) and OWN.fullmatch(key.rpartition(".")[2]):
        return Path(value).name  # where somebody's folders lie concerns nobody
    if isinstance(value, float):
        return f"{value:g}"
    return value if isinstance(value, str) else _written(value).replace('"', "")


def _rank(value: Any) -> tuple[int, float, str]:
    """Numbers by size, before all else by its text."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if number else (1, 0.0, _written(value))
