"""What the page loads when somebody asks for it: every number, every group, methods, claims and references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

from mibench.card import HEADLINES
from mibench.leaderboard.claims import Judgement, effect
from mibench.leaderboard.groups import Group
from mibench.leaderboard.numbers import Number
from mibench.leaderboard.page.columns import Texts, columns, listed, number, rounded
from mibench.leaderboard.page.content import Sources
from mibench.leaderboard.page.group_columns import NUMBERS, verdict_of
from mibench.leaderboard.page.methods import bib_of, dataset_pages, method_pages, own_entry, reference_entries
from mibench.leaderboard.page.names import card_in, metric_name, title_in
from mibench.leaderboard.page.records import Record
from mibench.leaderboard.page.sentences import claim
from mibench.leaderboard.pictures import may_show
from mibench.leaderboard.reference import Published, ours, protocol
from mibench.leaderboard.scoring import Score

#: What a privacy guarantee is made of, in the order in which it is told.
GUARANTEE = ("epsilon", "delta")

#: What a defense says of its guarantee in words, and the words before it.
PARTS: Mapping[str, str] = {"unit": "of one", "neighbours": "neighbours:", "accountant": "accountant:"}


def details(sources: Sources) -> dict[str, Any]:
    """Return all that does not stand in the overview, as JSON data."""
    texts = Texts()
    groups = _groups(sources, texts)
    names, numbers = _numbers(sources)
    return {
        "rows": sources.rows,
        "metrics": names,
        "numbers": numbers,
        "groups": groups,
        "methods": method_pages(sources),
        "datasetPages": dataset_pages(sources),
        "claims": [_claim(sources, one, about) for one, about in sources.claims],
        "published": [_figure(one, sources.groups) for one in sources.figures],
        "setAside": [list(one) for one in sorted(sources.set_aside.items())],
        "bib": reference_entries(sources),
        "bibOf": bib_of(sources),
        "self": own_entry(),
        "texts": texts.listed(),
    }


# Numbers


def _numbers(sources: Sources) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the metrics that numbers name by their place, and the columns of all measured numbers."""
    owned = [(place, one) for place, group in enumerate(sources.groups) for one in group.numbers if one.seeds]
    keys = sorted({(*one.key, one.score.unit) for _, one in owned})
    places = {key: place for place, key in enumerate(keys)}
    headlines = set(HEADLINES.values())
    metrics = [
        {"name": metric_name(key), "metric": key[0], "variant": key[1], "evaluator": key[2], "unit": key[3],
         "headline": key[:3] in headlines}
        for key in keys
    ]  # fmt: skip
    records = sources.records

    scores = [_score(records[place], one) for place, one in owned]

    def values(field: str) -> list[float]:
        return list(map(attrgetter(field), scores))

    rows: dict[str, Sequence[Any]] = {
        "group": [place for place, _ in owned],
        "metric": [places[(*one.key, one.score.unit)] for _, one in owned],
        **{name: rounded(values(field)) for name, field in NUMBERS.items()},
        "null": rounded(values("null")),
        "nullName": [one.score.null_name for _, one in owned],
        "verdict": [verdict_of(one.verdict) for _, one in owned],
        "n": [one.score.n for _, one in owned],
        "seeds": [one.seeds for _, one in owned],
    }
    return metrics, columns(rows)


def _score(record: Record, one: Number) -> Score:
    """Return the score of a number, that of the headline with the ends that the page shows everywhere."""
    headline = record.score
    same = headline is not None and one.key == (headline.metric, headline.variant, headline.evaluator)
    return headline if headline is not None and same else one.score


# Groups


def _groups(sources: Sources, texts: Texts) -> dict[str, Any]:
    records = sources.records
    made = [sources.made[one.group.group_id] for one in records]
    groups = [one.group for one in records]
    pictures = [sources.pictures.get(one.group_id, "") for one in groups]
    rows: dict[str, Sequence[Any]] = {
        "knows": [knows(one) for one in groups],
        **{name: [one.facts[name] for one in groups] for name in ("task", "setting", "target", "budget", "fidelity")},
        "cells": [
            [[cell.cell_id, cell.seed, cell.status, texts.place(cell.reason)] for cell in one.cells] for one in groups
        ],
        "cost": [rounded([one.cost[name] for name in COST]) for one in groups],
        "device": [one.facts["device"] for one in groups],
        "mibenchVersion": [one.facts["mibench_version"] for one in groups],
        "commit": [one.facts["git_commit"] for one in groups],
        "notes": [[texts.place(note) for note in one.facts["notes"].split("\n") if note] for one in groups],
        "guarantee": [guarantee(one) for one in groups],
        "defenseFidelity": [defense_fidelity(one) for one in groups],
        "changed": ["; ".join(one.changed) for one in made],
        "picture": pictures,
        "pictureWhy": ["" if picture else why_no_picture(one) for one, picture in zip(groups, pictures, strict=True)],
    }
    blocks = sorted({name for one in groups for name in one.config} - {"seed"})
    return {
        "claim": listed([claim(one) for one in records]),
        "command": listed([one.command.split(" ") for one in made]),
        **columns(rows),
        "config": columns({name: [_block(texts, one, name) for one in groups] for name in blocks}),
    }


def _block(texts: Texts, group: Group, name: str) -> int:
    """Return the text of a block of a configuration; -1 where the group has none."""
    return texts.block(name, group.config[name]) if name in group.config else -1


COST = ("seconds", "training_seconds", "training_times", "peak_memory_mb")

#: What the side facts of a row's ``knowledge`` are called.
FACTS: Mapping[str, str] = {
    "public": "public data", "points": "examples in the update", "labels": "the labels", "marginals":
    "published frequencies", "transcript": "all uploads", "defense_loss": "the defense's loss", "repeats":
    "repeated queries", "encoder": "the client's part", "buffers": "batch-norm statistics", "prior": "prior",
    "confusion": "the confusion matrix", "companions": "more models of the same people",
}  # fmt: skip


def knows(group: Group) -> str:
    """Return what the attacker of a group knows, in words.

    ``public,prior:wgan_gp`` is ``public data, prior wgan_gp``.
    """
    words = [one.partition(":") for one in group.facts["knowledge"].split(",") if one]
    return ", ".join(
        " ".join(filter(None, (FACTS.get(name, name.replace("_", " ")), value))) for name, _, value in words
    )


def guarantee(group: Group) -> str:
    """Return the privacy guarantee of a group's defense in words; empty where it gives none.

    ``epsilon 8, delta 1e-05; of one example; neighbours: add or remove``: no leak was measured for it, and it is no
    number to compare attacks by.
    """
    found = {one.score.metric: one.score for one in group.numbers if one.seeds and one.score.metric in GUARANTEE}
    if "epsilon" not in found:
        return ""
    told = dict(part.partition("=")[::2] for part in found["epsilon"].variant.split(", ") if "=" in part)
    numbers = ", ".join(f"{name} {number(found[name].value)}" for name in GUARANTEE if name in found)
    numbers = numbers.replace("None", "infinite")
    return "; ".join([numbers, *(f"{PARTS[name]} {told[name]}" for name in PARTS if name in told)])


def defense_fidelity(group: Group) -> str:
    """Return what a group's defense was written from; empty without a defense."""
    if group.facts["defense"] == "none":
        return ""
    card = card_in(group.config, "defense")
    return card.fidelity if card else ""


def why_no_picture(group: Group) -> str:
    """Return why no picture of a group is shown."""
    if not group.measured:
        return "nothing was measured"
    if group.facts["modality"] not in ("image", "audio"):
        return "these data are no pictures"
    if not may_show(group.config):
        return f"the terms of {title_in(group.config, 'dataset', group.facts['dataset'])} allow no public pictures"
    return "no picture of it was kept"


# Claims and published figures


def _claim(sources: Sources, one: Judgement, about: Sequence[str]) -> dict[str, Any]:
    value, low, high = rounded([one.effect, one.low, one.high])
    return {
        "id": one.claim.id,
        "verdict": one.verdict,
        "text": one.claim.statement,
        "effect": value,
        "shown": effect(one),
        "low": low,
        "high": high,
        "unit": one.unit,
        "n": one.n,
        "seeds": one.seeds,
        "reason": one.remarks,
        "source": one.claim.source,
        "groups": [sources.place_of(group) for group in about],
    }


FIGURE = ("attack", "dataset", "target", "public", "resolution", "metric", "variant", "unit", "evaluator", "targets",
          "samples", "source_bib", "read", "notes")  # fmt: skip


def _figure(one: Published, groups: Sequence[Group]) -> dict[str, Any]:
    """Return a published figure with what was measured of the same here: group, value and how."""
    told: dict[str, Any] = {name: getattr(one, name) for name in FIGURE}
    source, _, place = one.source.removeprefix("https://").partition(" ")
    told |= {"value": number(one.value), "std": number(one.std), "source": source, "place": place, "ours": None}
    if (found := ours(one, groups)) is not None:
        group, measured = found
        told["ours"] = {"group": group.group_id, "value": number(measured.score.value), "protocol": protocol(group)}
    return told
