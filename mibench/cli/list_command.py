"""``mibench list``: the catalogue, read from cards without importing a component."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, cast

from mibench.card import (
    ACCESSES,
    MODALITIES,
    TASKS,
    AttackCard,
    Card,
    DatasetCard,
    DefenseCard,
    MetricCard,
    PriorCard,
    SettingCard,
    TargetCard,
)
from mibench.errors import UnknownNameError, UserError
from mibench.planning.cards import setting_of
from mibench.planning.catalogue import AXES, Entry, entries

#: The two facts that the short list shows of a component, by axis, as the heads of their columns.
FACTS = {
    "dataset": ("data", "licence"),
    "setting": ("access", "data"),
    "target": ("family", "data"),
    "prior": ("spaces", "asks the victim"),
    "attack": ("task", "access"),
    "defense": ("hooks", "affects"),
    "metric": ("leakier is", "tasks"),
}

DIRECTIONS = {True: "higher", False: "lower", None: "neither: it describes"}


def run(words: Sequence[str]) -> int:
    """Print one axis (``attacks``, ``defenses`` ...) or all: a line per component, with ``--long`` all facts."""
    long = "--long" in words
    axes: Sequence[str] = [word for word in words if word != "--long"]
    if len(axes) > 1 or any(word.startswith("-") for word in axes):
        known = ", ".join(f"{axis}s" for axis in AXES)
        raise UserError(f"list takes one axis at most ({known}) and --long, but got {' '.join(axes)}.")
    if axes and axes[0].removesuffix("s") not in AXES:
        raise UnknownNameError("axis", axes[0], [f"{axis}s" for axis in AXES])
    width = shutil.get_terminal_size((100, 24)).columns
    for axis in [word.removesuffix("s") for word in axes] or AXES:
        print(f"\n{axis}s")
        found = list(entries(axis))
        for line in in_full(found, width) if long else at_a_glance(axis, found, width):
            print(line)
    print("\nall options: docs/catalogue.md" if long else "\nall facts: python -m mibench list --long")
    return 0


def at_a_glance(axis: str, found: Sequence[Entry], width: int) -> Iterator[str]:
    """Yield a line per component with its name, title, year and two facts, each cut at ``width``."""
    lines = [("name", "title", "year", *FACTS[axis])]
    lines += [(one.name, title_of(one.card), str(one.card.year or ""), *two_facts(one.card)) for one in found]
    name, title, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    room = width - name - sum(others) - 2 * len(lines[0])
    widths = [name, min(title, max(room, 20)), *others]
    for line in lines:
        cells = [cut(cell, size).ljust(size) for cell, size in zip(line, widths, strict=True)]
        yield cut("  " + "  ".join(cells).rstrip(), width)


def two_facts(card: Card) -> tuple[str, str]:
    """Return the facts of a card that stand below the heads of ``FACTS``."""
    data = shortened(card.modalities, MODALITIES, "any")
    match card:
        case DatasetCard():
            return data, card.licence
        case SettingCard():
            return ", ".join(card.access), data
        case TargetCard():
            return card.family, data
        case PriorCard():
            return "" if card.name == "none" else ", ".join(card.spaces), card.asks
        case AttackCard():
            return card.task, ", ".join(card.access)
        case DefenseCard():
            return ", ".join(card.hooks), shortened(card.affects, offered(), "all")
        case MetricCard():
            return DIRECTIONS[card.higher_is_leakier], shortened(card.tasks, list(TASKS), "any")
    raise TypeError(f"There is no axis for a {type(card).__name__}.")


def in_full(found: Sequence[Entry], width: int) -> Iterator[str]:
    """Yield all that the cards say: a line with name, title and year, below it the facts, wrapped at ``width``."""
    indent = " " * 6
    wrapper = textwrap.TextWrapper(width, indent, indent, break_long_words=False, break_on_hyphens=False)
    for one in found:
        yield f"  {one.name}  {title_of(one.card)}{f' ({one.card.year})' if one.card.year else ''}"
        yield from wrapper.wrap("; ".join(f"{what}: {said}" for what, said in facts_of(one.card).items()))


def facts_of(card: Card) -> dict[str, str]:
    """Return what a card says beyond name, title and year: each fact in words, by what it is a fact of."""
    facts: dict[str, Any] = {"data": card.modalities}
    match card:
        case DatasetCard():
            shown = "may be shown" if card.may_show else "may not be shown"
            facts |= {"tasks": card.tasks, "licence": card.licence, "pictures": shown}
            facts |= {"embedded": "yes" if card.embedded else ""}
        case SettingCard():
            facts |= {"access": card.access, "further hooks in training": card.training_hooks}
        case TargetCard():
            facts |= {"family": card.family}
        case PriorCard() if card.name != "none":
            facts |= {"spaces": card.spaces, "asks the victim": card.asks}
        case AttackCard():
            facts |= {"task": card.task, "access": card.access, "family": card.family, "needs": card.needs}
            facts |= {"may use": card.uses, "searches": card.space if "prior" in card.needs else ""}
            facts |= {"largest client batch": str(card.largest_batch or ""), "split encoder": card.encoder}
            facts |= {"changes the model": "yes" if card.plants else ""}
        case DefenseCard():
            levels = ", ".join(f"{level:g}" for level in card.levels)
            facts |= {"hooks": card.hooks, "affects": card.affects, "withholds": card.withholds}
            facts |= {"strength": f"{card.strength}, from weak to strong {levels}" if levels else card.strength}
            facts |= {"stronger is": card.stronger}
            facts |= {"baselines": tuple(setting_of(*one) for one in card.baselines)}
            facts |= {"replaces the target by": card.replaces, "serves a finished model at": card.finished}
            facts |= {"attackers who know of it": card.adaptive}
        case MetricCard():
            facts |= {"tasks": card.tasks, "leakier is": DIRECTIONS[card.higher_is_leakier], "unit": card.unit}
            facts |= {"computed": "" if card.default else "only where it is asked for"}
    facts |= {"fidelity": card.fidelity if card.bib else "", "code": card.code}
    facts |= {"revision": str(card.revision) if card.revision > 1 else ""}
    return {what: said if isinstance(said, str) else ", ".join(said) for what, said in facts.items() if said}


def title_of(card: Card) -> str:
    """Return a card's title, and of what it is a variant."""
    return f"{card.title} (variant of {card.variant_of})" if card.variant_of else card.title


def offered() -> list[str]:
    """Return the accesses to a victim that some setting offers."""
    cards = [cast(SettingCard, one.card) for one in entries("setting")]
    return [one for one in ACCESSES if one != "none" and any(one in card.access for card in cards)]


def shortened(words: Sequence[str], known: Sequence[str], all_of_them: str) -> str:
    """Return words as a list, or as all but the few that are missing.

    >>> shortened(["a", "b", "d", "e"], "abcde", "all")
    'all but c'
    """
    missing = [word for word in known if word not in words]
    if len(missing) > 1 or len(words) < 3:
        return ", ".join(words)
    return f"{all_of_them} but {missing[0]}" if missing else all_of_them


def cut(text: str, width: int) -> str:
    """Return ``text``, its end replaced by an ellipsis where it is longer than ``width``."""
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"
