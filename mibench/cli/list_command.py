"""``mibench list``: the catalogue, read from cards without importing a component."""

from __future__ import annotations

from collections.abc import Sequence

from mibench.card import AttackCard, Card, DatasetCard, DefenseCard, MetricCard, PriorCard, SettingCard, TargetCard
from mibench.errors import UnknownNameError, UserError
from mibench.planning.catalogue import AXES, entries


def run(words: Sequence[str]) -> int:
    """Print one axis (``attacks``, ``defenses`` ...) or all of them."""
    if len(words) > 1:
        raise UserError(
            f"list takes one axis at most ({', '.join(f'{axis}s' for axis in AXES)}), but got {len(words)}."
        )
    axes: Sequence[str] = AXES
    if words:
        axis = words[0].removesuffix("s")
        if axis not in AXES:
            raise UnknownNameError("axis", words[0], [f"{one}s" for one in AXES])
        axes = [axis]
    for axis in axes:
        lines = [("name", "title", "year", "what it says of itself", "fidelity")]
        for one in entries(axis):
            card = one.card
            variant = f" (variant of {card.variant_of})" if card.variant_of else ""
            lines.append(
                (one.name, card.title + variant, str(card.year or ""), "; ".join(describe(card)), card.fidelity)
            )
        print(f"\n{axis}s")
        widths = [max(len(line[i]) for line in lines) for i in range(5)]
        for line in lines:
            print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()
    return 0


def describe(card: Card) -> list[str]:
    """Return what a card says beyond name and title, as short clauses."""
    parts = [", ".join(card.modalities)]
    if isinstance(card, AttackCard):
        parts += [f"task {card.task}", f"access {' or '.join(card.access)}", card.family]
        parts += [f"needs {', '.join(card.needs)}"] if card.needs else []
        parts += [f"may use {', '.join(card.uses)}"] if card.uses else []
        parts += [f"searches {card.space}"] if "prior" in card.needs else []
    elif isinstance(card, DefenseCard):
        parts += [f"hooks {', '.join(card.hooks)}" if card.hooks else "no hook"]
        parts += [f"affects {', '.join(card.affects)}"] if card.affects else []
    elif isinstance(card, MetricCard):
        direction = {True: "higher is leakier", False: "lower is leakier", None: "describes, no leak by itself"}
        parts += [f"tasks {', '.join(card.tasks)}", direction[card.higher_is_leakier]]
    elif isinstance(card, DatasetCard):
        parts += [f"tasks {', '.join(card.tasks)}", card.licence, "embedded" if card.embedded else "to be downloaded"]
    elif isinstance(card, SettingCard):
        parts += [f"access {', '.join(card.access)}"]
    elif isinstance(card, PriorCard) and card.name != "none":
        parts += [f"for search in {', '.join(card.spaces)}"]
        parts += [f"asks the victim ({card.asks})"] if card.asks else []
    elif isinstance(card, TargetCard):
        parts += [f"family {card.family}"] if card.family else []
    return parts
