"""What attacks, defenses, datasets and metrics are called on the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from mibench.card import Card
from mibench.errors import UserError
from mibench.leaderboard.lines import number as written
from mibench.planning.catalogue import card_of, entry

#: Text, or text with where it leads to (empty: the text is emphasised).
Segment = str | Sequence[str]

#: Datasets that are known under a shorter name than their title.
DATASETS: Mapping[str, str] = {
    "lfw": "LFW faces", "att_faces": "AT&T faces", "digits": "Digits", "bank_marketing": "Bank records",
    "adult": "Census records", "fsdd": "Spoken digits", "sst2": "SST-2 sentences",
    "cola": "CoLA sentences", "rotten_tomatoes": "Film reviews", "ag_news": "AG News",
    "shakespeare": "Shakespeare lines",
}  # fmt: skip

#: What a component is called that has no entry of its own.
PLAIN: Mapping[tuple[str, str], str] = {("defense", "none"): "no defense"}


def card_in(config: Mapping[str, Any], axis: str) -> Card | None:
    """Return the card of a component of a stored configuration; None where it cannot be read today."""
    block = config.get(axis, {})
    if block.keys() & {"base", "parts"}:
        return card_of_block(block)
    return _plain_card(str(block.get("_target_")), str(block.get("name", "")), str(block.get("variant_of", "")))


def card_of_block(block: Mapping[str, Any]) -> Card | None:
    """Return the card of a component's block; None where it cannot be read today."""
    try:
        return card_of(block)
    except UserError:
        return None


@cache
def _plain_card(target: str, name: str, variant_of: str) -> Card | None:
    return card_of_block({"_target_": target, "name": name, "variant_of": variant_of})


def title_in(config: Mapping[str, Any], axis: str, name: str) -> str:
    """Return what a component of a stored configuration is called; its name where its card cannot be read."""
    if (axis, name) in PLAIN:
        return PLAIN[axis, name]
    if axis == "dataset" and name in DATASETS:
        return DATASETS[name]
    if "+" in name:
        return " + ".join(title_of(axis, part) for part in name.split("+"))
    card = card_in(config, axis)
    if card is None:
        return name
    return f"{card.title} ({name})" if card.variant_of else card.title


def title_of(axis: str, name: str) -> str:
    """Return what a component of today is called, as people write it; its name where there is none."""
    try:
        return entry(axis, name).card.title
    except UserError:
        return name


def metric_name(key: Sequence[str]) -> str:
    """Return a metric, its form and who judged in words.

    >>> metric_name(("attack_accuracy", "top1", "vote")), metric_name(("psnr", "", ""))
    ('attack accuracy top1 (vote)', 'psnr')
    """
    metric, variant, evaluator = key[0], key[1], key[2]
    words = " ".join(word for word in (metric.replace("_", " "), variant.replace("_", " ")) if word)
    return f"{words} ({evaluator})" if evaluator else words


def headline_name(key: Sequence[str]) -> str:
    """Return the number by which a task is compared, in words for people who know the field.

    >>> headline_name(("attack_accuracy", "top1", "vote")), headline_name(("psnr", "", ""))
    ('attack accuracy (vote)', 'PSNR')
    """
    metric, variant, evaluator = key[0], key[1], key[2]
    shown = metric.upper() if metric in ("psnr", "ssim", "lpips", "mse") else metric.replace("_", " ")
    words = " ".join(word for word in (shown, "" if variant == "top1" else variant.replace("_", " ")) if word)
    return f"{words} ({evaluator})" if evaluator else words


def amount(value: float, unit: str) -> str:
    """Return a value with its unit: ``0.92``, ``24.1 dB``."""
    return f"{written(value)} {unit}".strip()


def link(axis: str, name: str, title: str) -> Segment:
    """Return a link to the page of a method."""
    return [title, f"#/method/{axis}/{name}"]


def listed(words: Sequence[Segment]) -> list[Segment]:
    """Return words as a list in prose: ``a, b and c``."""
    found: list[Segment] = []
    for place, word in enumerate(words):
        if place:
            found.append(" and " if place == len(words) - 1 else ", ")
        found.append(word)
    return found


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """Return segments with plain text in one piece where it meets."""
    found: list[Segment] = []
    for one in segments:
        if isinstance(one, str) and found and isinstance(found[-1], str):
            found[-1] += one
        elif one:
            found.append(one)
    return found


def as_text(segments: Sequence[Segment]) -> str:
    """Return segments without their links."""
    return "".join(one if isinstance(one, str) else one[0] for one in segments)
