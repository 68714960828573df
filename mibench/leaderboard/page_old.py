"""The static page: one file that needs no network and no server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from mibench.card import HEADLINES
from mibench.leaderboard.compare import on_front
from mibench.leaderboard.groups import FACTS, Group
from mibench.leaderboard.pictures import may_show
from mibench.leaderboard.reference import Published, ours, protocol
from mibench.leaderboard.statistics import NAN
from mibench.leaderboard.worst import WorstCase

#: Significant digits on the page; the parquet file has all of them.
DIGITS = 5

#: The numbers of a score that the page shows.
SHOWN = ("value", "ci_low", "ci_high", "control", "lift", "lift_low", "lift_high")

ENCODER = json.JSONEncoder(sort_keys=True)


@dataclass(frozen=True)
class Reproduction:
    """How a cell is made again.

    Attributes:
        command: The command line, empty where there is none.
        options: What of it differs from today's defaults, as a reader sees it: options, and the attack that is wrapped.
        changed: What the cell was and no option can bring back.
    """

    command: str
    options: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()


def page(content: Mapping[str, Any]) -> str:
    """Return the page with its style, script and data inside: fetching fails on ``file://``."""
    here = files("mibench.leaderboard")
    data = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = data.replace("</", "<\\/").replace("<!--", "<\\u0021--")
    parts = {"style": here / "page.css", "script": here / "page.js"}
    text = (here / "page.html").read_text(encoding="utf-8")
    for name, file in parts.items():
        text = text.replace(f"/*{name}*/", file.read_text(encoding="utf-8"))
    return text.replace("/*data*/", data)


def page_data(
    groups: Sequence[Group],
    made: Mapping[str, Reproduction],
    pictures: Mapping[str, str],
    set_aside: Mapping[str, str],
    local: bool,
    figures: Sequence[Published] = (),
    cases: Sequence[WorstCase] = (),
) -> dict[str, Any]:
    """Return what the page shows, as JSON data.

    Text that many groups share (configuration blocks, notes, reasons) stands once in ``texts`` and is named by number.
    """
    texts: dict[str, int] = {}

    def text(value: str) -> int:
        return texts.setdefault(value, len(texts))

    last: dict[
        str, tuple[Any, int]
    ] = {}  # neighbours have most blocks in common, and comparing is cheaper than writing

    def block(name: str, value: Any) -> int:
        if name not in last or last[name][0] != value:
            last[name] = (value, text(ENCODER.encode(value)))
        return last[name][1]

    metrics = {
        key: number
        for number, key in enumerate(sorted({(*one.key, one.score.unit) for group in groups for one in group.numbers}))
    }
    fronts = on_front(groups)
    owned = [(position, one) for position, group in enumerate(groups) for one in group.numbers]
    values = shortened([[getattr(one.score, name) for name in SHOWN] for _, one in owned])
    rows = [
        [position, metrics[(*one.key, one.score.unit)], *short, one.score.n, one.seeds, one.verdict, one.score.status,
         text(one.score.reason)]
        for (position, one), short in zip(owned, values, strict=True)
    ]  # fmt: skip
    return {
        "local": local,
        "metrics": [
            {"name": " ".join(word for word in key[:3] if word), "metric": key[0], "unit": key[3]} for key in metrics
        ],
        "headlines": {task: " ".join(word for word in key if word) for task, key in HEADLINES.items()},
        "groups": [
            _group(one, made[one.group_id], pictures.get(one.group_id), text, block, fronts.get(one.group_id))
            for one in groups
        ],
        "rows": rows,
        "setAside": sorted(set_aside.items()),
        "worst": [_worst(one) for one in cases],
        "published": [_figure(one, groups) for one in figures],
        "texts": list(texts),
    }


def _worst(case: WorstCase) -> dict[str, Any]:
    """Return a worst case with the group of the attack that was picked first."""
    group = next(one for one in case.groups if one.facts["attack"] == case.picked[0])
    accuracy = group.utility
    right = accuracy.score.value if accuracy else NAN
    numbers = [case.lift, case.spread.low, case.spread.high, right, group.cost["training_times"]]
    ((lift, low, high, known, times),) = shortened([numbers])
    return {
        **{name: group.facts[name] for name in ("dataset", "target", "access", "defense", "setting", "budget")},
        "options": list(case.options),
        "group": group.group_id,
        "picked": list(case.picked),
        "attacks": case.attacks,
        "lift": lift,
        "low": low,
        "high": high,
        "unit": case.unit,
        "accuracy": known,
        "times": times,
    }


def _figure(one: Published, groups: Sequence[Group]) -> dict[str, Any]:
    """Return a published figure with what was measured of the same here: group, value and how."""
    told = {name: getattr(one, name) for name in FIGURE}
    ((value, std),) = shortened([[one.value, one.std]])
    source = one.source.removeprefix("https://")  # as text: the page asks for nothing elsewhere
    told |= {"value": value, "std": std, "source": source, "ours": None}
    if (found := ours(one, groups)) is not None:
        group, number = found
        ((measured,),) = shortened([[number.score.value]])
        told["ours"] = {"group": group.group_id, "value": measured, "protocol": protocol(group)}
    return told


FIGURE = ("attack", "dataset", "target", "public", "resolution", "metric", "variant", "unit", "evaluator", "targets",
          "samples", "source_bib", "read", "notes")  # fmt: skip


def _group(
    group: Group,
    made: Reproduction,
    picture: str | None,
    text: Callable[[str], int],
    block: Callable[[str, Any], int],
    front: bool | None,
) -> dict[str, Any]:
    accuracy = group.utility
    chance = group.number("target_accuracy", "chance")
    known = [NAN if one is None else one.score.value for one in (accuracy, chance)]
    known += [NAN, NAN] if accuracy is None else [accuracy.score.ci_low, accuracy.score.ci_high]
    (short,) = shortened([[*known, *group.cost.values()]])
    return {
        "id": group.group_id,
        **{name: group.facts[name] for name in FACTS},
        "accuracy": short[0],
        "chance": short[1],
        "accuracyLow": short[2],
        "accuracyHigh": short[3],
        "front": front,
        "cells": [[one.cell_id, one.seed, one.status, text(one.reason)] for one in group.cells],
        "cost": dict(zip(group.cost, short[4:], strict=True)),
        "run": [group.facts[name] for name in ("device", "mibench_version", "git_commit")],
        "notes": [text(note) for note in group.facts["notes"].split("\n") if note],
        "command": made.command,
        "options": list(made.options),
        "changed": list(made.changed),
        "picture": picture,
        "shown": may_show(group.config),
        "config": {name: block(name, value) for name, value in sorted(group.config.items()) if name != "seed"},
    }


def shortened(values: Sequence[Sequence[float]]) -> list[list[float | None]]:
    """Return numbers with ``DIGITS`` significant digits, None for NaN and infinity.

    >>> shortened([[0.123456789, float("nan")], [123456.789, -6.25e-8]])
    [[0.12346, None], [123457.0, -6.25e-08]]
    """
    if not values:
        return []
    array = np.array(values, dtype=np.float64)
    finite = np.isfinite(array)
    size = np.abs(np.where(finite & (array != 0), array, 1))
    scale = 10.0 ** np.maximum(DIGITS - 1 - np.floor(np.log10(size)), 0)
    rounded = (np.round(np.where(finite, array, 0) * scale) / scale).tolist()
    return [
        [value if there else None for value, there in zip(row, known, strict=True)]
        for row, known in zip(rounded, finite.tolist(), strict=True)
    ]
