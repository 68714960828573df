"""Cards read from source files without importing them, and cards that derive from others."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

from mibench.card import (
    ACCESSES,
    FIDELITIES,
    HOOKS,
    AttackCard,
    Card,
    DatasetCard,
    DefenseCard,
    MetricCard,
    PriorCard,
    SettingCard,
    TargetCard,
)
from mibench.options import shown

CARD_TYPES: dict[str, type[Card]] = {
    card.__name__: card
    for card in (DatasetCard, TargetCard, SettingCard, AttackCard, DefenseCard, MetricCard, PriorCard)
}

C = TypeVar("C", bound=Card)


def read_card(path: Path, class_name: str) -> Card:
    """Read the card of ``class_name`` from a source file without importing it.

    Args:
        path: A Python file with ``class <class_name>`` whose body holds ``card = <Kind>Card(...)``.
        class_name: The class.

    Raises:
        ValueError: If the class or its literal card is not there.
    """
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name == class_name):
            continue
        for statement in node.body:
            value = getattr(statement, "value", None)
            targets = getattr(statement, "targets", None) or [getattr(statement, "target", None)]
            names = [target.id for target in targets if isinstance(target, ast.Name)]
            if names == ["card"] and isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
                fields = {word.arg: _literal(word) for word in value.keywords if word.arg}
                try:
                    return CARD_TYPES[value.func.id](**fields)
                except TypeError as error:  # a field is missing or unknown
                    raise ValueError(f"{error}; mibench/card.py says which fields a card has.") from error
    raise ValueError(f"{path} holds no class '{class_name}' with a literal card; add 'card = ...Card(...)' to it.")


def _literal(field: ast.keyword) -> Any:
    try:
        return ast.literal_eval(field.value)
    except ValueError as error:
        said = ast.unparse(field.value)
        raise ValueError(f"The field '{field.arg}' of its card is '{said}', but has to be a literal.") from error


def vary(card: C, **changes: Any) -> C:
    """Return ``card`` with some fields replaced (a variant's yaml, a wrapper's parts)."""
    return dataclasses.replace(card, **changes)


def wrapped(card: AttackCard, base: AttackCard) -> AttackCard:
    """Return the card of a wrapper with what the attack that it wraps needs; a revision of either one counts."""
    return dataclasses.replace(
        card,
        access=tuple(access for access in card.access if access in base.access),
        needs=tuple(dict.fromkeys((*card.needs, *base.needs))),
        uses=tuple(dict.fromkeys((*card.uses, *base.uses))),
        space=base.space,
        largest_batch=base.largest_batch,
        revision=card.revision + base.revision - 1,
    )


def stacked(card: DefenseCard, parts: Sequence[DefenseCard]) -> DefenseCard:
    """Return the card of several defenses at once: named after all, and as faithful as the least of them."""
    able = all(part.on_finished or not part.hooks for part in parts)  # to serve a model that came trained
    return dataclasses.replace(
        card,
        name="+".join(part.name for part in parts),
        modalities=tuple(one for one in card.modalities if all(one in part.modalities for part in parts)),
        hooks=tuple(sorted({hook for part in parts for hook in part.hooks}, key=HOOKS.index)),
        affects=tuple(sorted({one for part in parts for one in part.affects}, key=ACCESSES.index)),
        adaptive=tuple(dict.fromkeys(words for part in parts for words in part.adaptive)),
        withholds=tuple(sorted({one for part in parts for one in part.withholds}, key=ACCESSES.index)),
        cohort=any(part.cohort for part in parts),
        replaces=next((part.replaces for part in parts if part.replaces), ""),
        finished=tuple(sorted({hook for part in parts for hook in part.on_finished if able}, key=HOOKS.index)),
        fidelity=max((part.fidelity for part in parts), key=FIDELITIES.index, default=card.fidelity),
    )


#: The families of architectures that an option ``arch`` names, by the beginning of the name.
KIN: Mapping[str, str] = {"resnet": "residual", "resnext": "residual", "wide_resnet": "residual", "swin": "transformer",
                          "vit": "transformer", "maxvit": "transformer", "alexnet": "convolutional"}  # fmt: skip


def family_of(card: TargetCard, options: Mapping[str, Any]) -> str:
    """Return the family of an architecture, by its card or by its option ``arch``.

    >>> family_of(TargetCard(name="torchvision_model", title="", modalities=("image",)), {"arch": "resnet152"})
    'residual'
    """
    arch = str(options.get("arch", ""))
    known = (family for begin, family in KIN.items() if arch.startswith(begin))
    return card.family or next(known, "".join(takewhile(str.isalpha, arch)))


def setting_of(option: str, value: bool | int | float | str | None) -> str:
    """Return an option of a card with its value as a command line takes it, numbers as short as they can be.

    >>> setting_of("gamma", 0.0), setting_of("epsilon", None), setting_of("beta", 3e-4)
    ('gamma=0', 'epsilon=null', 'beta=0.0003')
    """
    return f"{option}={f'{value:g}' if isinstance(value, float) else shown(value)}"
