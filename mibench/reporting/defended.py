"""What a report says of defenses: those that were tried, what the table leaves out and why, and those to try."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from mibench.card import AttackCard, Card, DatasetCard, DefenseCard, SettingCard, TargetCard
from mibench.leaderboard.page.names import title_of
from mibench.planning.catalogue import entries
from mibench.planning.compatibility import (
    CellCards,
    Rule,
    defense_changes_what_is_seen,
    defense_leaves_the_access,
    finished_model_is_served_by_the_defense,
    finished_model_needs_no_training,
    target_is_a_network_for_the_access,
)
from mibench.reporting.findings import Finding, reasons
from mibench.reporting.markup import table

Why = Literal["not measured", "cannot matter", "withheld", "other victim"]


@dataclass(frozen=True)
class LeftOut:
    """An attack that the table of defenses does not have under a defense.

    Attributes:
        attack: Name of the attack.
        defense: Name of the defense.
        why: The kind of reason.
        reason: The reason as a sentence.
    """

    attack: str
    defense: str
    why: Why
    reason: str


def victim_of(one: Finding) -> str:
    """Return what two cells must share to be compared by their defenses: data, setting and kind of model.

    The weights of a model that came trained are left out: under a defense its architecture is trained again.
    """
    config = json.loads(one.facts["config"] or "{}")
    blocks = {name: dict(config.get(name) or {}) for name in ("dataset", "setting", "target")}
    blocks["target"].pop("weights", None)
    return json.dumps([*(one.facts[name] for name in blocks), blocks], sort_keys=True)


def compared(found: Sequence[Finding]) -> list[Finding]:
    """Return the cells of the table of defenses: of every attack that met one, on the same kind of model."""
    met = {(one.facts["attack"], victim_of(one)) for one in found if one.facts["defense"] != "none" and one.headline}
    return [one for one in found if one.headline and (one.facts["attack"], victim_of(one)) in met]


def left_out(found: Sequence[Finding]) -> list[LeftOut]:
    """Return every attack of the report that the table of defenses lacks under a defense, or without one, and why."""
    there = compared(found)
    in_table = {(one.facts["attack"], one.facts["defense"]) for one in there}
    defenses = sorted({one.facts["defense"] for one in found if one.facts["defense"] != "none"})
    attacks = list(dict.fromkeys(one.facts["attack"] for one in found))
    missing = []
    for attack in attacks:
        own = [one for one in found if one.facts["attack"] == attack]
        for defense in [*defenses, *(["none"] if any(name == attack for name, _ in in_table) else [])]:
            if (attack, defense) not in in_table:
                why, reason = _why(own, defense, found)
                missing.append(LeftOut(attack, defense, why, reason))
    return missing


def _why(own: Sequence[Finding], defense: str, found: Sequence[Finding]) -> tuple[Why, str]:
    """Return why an attack with these cells has none under a defense."""
    cells = [one for one in own if one.facts["defense"] == defense]
    if any(one.headline for one in cells):
        return "other victim", "It was measured on another model or other data, so it cannot be set beside the others."
    if cells:
        reason = reasons(cells[0])
        if reason.startswith("Vacuous: "):
            return "cannot matter", plain_reason(reason)
        return ("withheld" if " withholds " in reason else "not measured"), plain_reason(reason)
    cards = _cards(own[0], defense)
    if objection := _objection(cards, SEEN):
        return objection
    of_defense = {victim_of(one) for one in found if one.facts["defense"] == defense}
    if of_defense and not of_defense & {victim_of(one) for one in own}:
        return "other victim", "The defense was tried on another model or other data than this attack."
    return _objection(cards, TRAINED) or ("not measured", "No such cell is part of this report.")


#: Rules on what an attacker sees, and on how the victim came about, with the kind of reason that each gives.
SEEN: Sequence[tuple[Why, Rule]] = (
    ("withheld", defense_leaves_the_access),
    ("cannot matter", defense_changes_what_is_seen),
)
TRAINED: Sequence[tuple[Why, Rule]] = (
    ("not measured", target_is_a_network_for_the_access),
    ("not measured", finished_model_needs_no_training),
    ("cannot matter", finished_model_is_served_by_the_defense),
)


def _objection(cards: CellCards | None, rules: Sequence[tuple[Why, Rule]]) -> tuple[Why, str] | None:
    """Return what the first of some rules has against a cell; None where none has, or its cards are not known."""
    if cards is None:
        return None
    return next(((why, plain_reason(reason)) for why, rule in rules if (reason := rule(cards))), None)


def plain_reason(reason: str) -> str:
    """Return a reason as a sentence, without the kind of refusal before it and the path of a log behind it.

    >>> plain_reason("Vacuous: defense 'x' cannot.")
    "Defense 'x' cannot."
    """
    said = reason.removeprefix("Vacuous: ").removeprefix("Incompatible: ").partition(" (log: ")[0]
    return f"{said[:1].upper()}{said[1:]}"


def _cards(one: Finding, defense: str) -> CellCards | None:
    """Return the cards that would meet; None where one of them is not in the catalogue."""
    names = {"dataset": one.facts["dataset"], "setting": one.facts["setting"], "target": one.facts["target"],
             "attack": one.facts["attack"], "defense": defense}  # fmt: skip
    found: dict[str, Card] = {}
    for axis, name in names.items():
        if (card := {each.name: each.card for each in entries(axis)}.get(name)) is None:
            return None
        found[axis] = card
    return CellCards(
        dataset=cast(DatasetCard, found["dataset"]),
        setting=cast(SettingCard, found["setting"]),
        target=cast(TargetCard, found["target"]),
        attack=cast(AttackCard, found["attack"]),
        defense=cast(DefenseCard, found["defense"]),
        access=one.facts["access"],
        finished=weights_of(one) is not None,
    )


def weights_of(one: Finding) -> str | None:
    """Return the file of the user's own model, None for one that mibench trained."""
    path = (json.loads(one.facts["config"] or "{}").get("target") or {}).get("weights")
    return None if path is None else Path(str(path)).name


def names_of(found: Sequence[Finding]) -> dict[str, str]:
    """Return what every cell is called, by its id: attack and defense, and the seed where the cells have several."""
    several = len({int(one.facts["seed"]) for one in found}) > 1
    names = {}
    for one in found:
        attack, defense = title_of("attack", one.facts["attack"]), one.facts["defense"]
        name = attack if defense == "none" else f"{attack}, with the defense {title_of('defense', defense)}"
        names[one.facts["cell_id"]] = f"{name}, seed {one.facts['seed']}" if several else name
    return names


def to_try(found: Sequence[Finding]) -> str:
    """Return the section on the defenses of the catalogue that can change what a leaking access sees."""
    leaking = {one.facts["access"] for one in found if one.verdict == "leak" or one.signs}
    tried = {one.facts["defense"] for one in found}
    modality, own = found[0].facts["modality"], weights_of(found[0]) is not None
    ready: list[list[str]] = []
    retrained: list[list[str]] = []
    for each in entries("defense"):
        card = cast(DefenseCard, each.card)
        helps = sorted(leaking & set(card.affects))
        if helps and each.name not in tried and modality in card.modalities:
            at_once = [access for access in helps if card.reaches_finished(access)] if own else []
            finished, helps = bool(at_once) or not card.trains, at_once or helps
            title = card.title + (f" ({card.year})" if card.year else "")
            title += f", variant {each.name}" if card.variant_of else ""
            options = f"defense={each.name}" + ("" if finished or not own else " target.weights=null")
            line = [title, ", ".join(helps).replace("_", " "), options]
            (ready if finished else retrained).append(line)
    head = ["defense", "can help against access", "to try it, add to the command"]
    parts = []
    if ready:
        parts += ["<p>Without training the model again:</p>", table(head, ready)]
    if retrained:
        parts += [
            "<p>By training again under the defense"
            + ("; this trains your architecture afresh and attacks the result" if own else "")
            + ":</p>",
            table(head, retrained),
        ]
    if not parts:
        return ""
    return '<h2 id="to-try">Defenses to try</h2>' + "\n".join(parts) + (
        "<p>None of them is a promise: try it and read this page again. A defense that costs most of the accuracy is "
        "none.</p>"
    )  # fmt: skip
