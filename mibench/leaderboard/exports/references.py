"""BibTeX entries of the methods behind a group's numbers, from ``references.bib``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from mibench.errors import UserError
from mibench.leaderboard.compare import number_of
from mibench.leaderboard.groups import Group
from mibench.planning.catalogue import card_of, conf_dirs, entry
from mibench.planning.sources import PACKAGE

#: The components of a cell that have papers.
CITED = ("dataset", "setting", "target", "prior", "attack", "defense")

#: mibench's own entry; ``CITATION.cff`` says the same.
SOFTWARE = """@software{{mibench,
  title   = {{{{mibench}}: a benchmark of model inversion attacks and defenses}},
  author  = {{{{The mibench developers}}}},
  version = {{{version}}},
  year    = {{2026}},
  license = {{Apache-2.0}},
}}"""


@dataclass(frozen=True)
class Bibliography:
    """References of some groups.

    Attributes:
        text: The entries, sorted by key, mibench's own among them.
        keys: Their keys.
        missing: What should have an entry and has none, a sentence each.
    """

    text: str
    keys: Sequence[str]
    missing: Sequence[str]


def bibliography(groups: Sequence[Group], key: tuple[str, str, str] | None = None) -> Bibliography:
    """Return the entries of all components of groups, and of the metric that is shown of each.

    Args:
        groups: The groups.
        key: Metric, variant and evaluator; None for the headline of each task.
    """
    known, missing = references(), []
    wanted: dict[str, str] = {}
    for group in groups:
        for what, node in components(group):
            try:
                wanted.setdefault(card_of(node).bib, what)
            except UserError as error:
                missing.append(f"{what} is not in the catalogue, so its paper is not known: {error}")
        number = number_of(group, key)
        if number is not None and number.score.metric:
            wanted.setdefault(*_metric(number.score.metric))
    wanted.pop("", None)
    missing += [f"references.bib has no entry '{one}' ({what})." for one, what in wanted.items() if one not in known]
    versions = sorted({one.facts["mibench_version"] for one in groups} - {""})
    found = {one: known[one] for one in wanted if one in known}
    found["mibench"] = SOFTWARE.format(version=", ".join(versions))
    return Bibliography(
        "\n\n".join(found[one] for one in sorted(found)) + "\n", sorted(found), list(dict.fromkeys(missing))
    )


def keys_of(axis: str, group: Group) -> list[str]:
    """Return the keys of what a group has on one axis: of a wrapped attack both, of several defenses all."""
    found = []
    for what, node in components(group):
        if what.partition(" ")[0] == axis:
            try:
                found.append(card_of(node).bib)
            except UserError:
                continue
    return [one for one in dict.fromkeys(found) if one in references()]


def components(group: Group) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the components of a cell with their configuration, wrapped ones and parts too: ``attack gmi``."""
    for axis in CITED:
        node = group.config.get(axis)
        if not isinstance(node, Mapping):
            continue
        parts = node.get("parts") if isinstance(node.get("parts"), list) else []
        for one in (node, node.get("base"), *(parts or [])):
            if isinstance(one, Mapping):
                yield f"{axis} {one.get('name', '?')}", one


@cache
def references() -> Mapping[str, str]:
    """Return the entries of ``references.bib`` by key; those beside folders of one's own choices count too."""
    beside = PACKAGE / "references.bib"  # in an installed package; in a checkout it lies one level up
    files = [beside if beside.is_file() else PACKAGE.parent / "references.bib"]
    files += [folder / "references.bib" for folder in conf_dirs()]
    found: dict[str, str] = {}
    for file in files:
        if file.is_file():
            for text in re.split(r"^(?=@)", file.read_text(encoding="utf-8"), flags=re.MULTILINE):
                if named := re.match(r"@\w+\{\s*([^,\s]+)\s*,", text):
                    found.setdefault(named[1], text.strip())
    return found


def _metric(name: str) -> tuple[str, str]:
    """Return the key of a metric's paper, empty where it has none, and what it is."""
    try:
        return entry("metric", name).card.bib, f"metric {name}"
    except UserError:
        return "", ""
