"""Published figures: read from ``results/reference``, and put beside what was measured of the same thing here."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mibench.errors import UserError
from mibench.leaderboard.groups import Group
from mibench.leaderboard.numbers import Number
from mibench.leaderboard.statistics import NAN
from mibench.limits import TEXT, plain_file

COLUMNS = (
    "attack", "dataset", "target", "public", "resolution", "metric", "variant", "value", "std", "unit", "evaluator",
    "targets", "samples", "source_bib", "source", "read", "notes",
)  # fmt: skip

#: What can have been read.
READ = ("paper", "readme", "code", "configuration", "issue")

#: Metrics whose values are shares.
SHARES = ("attack_accuracy", "target_accuracy", "agreed_accuracy", "attribute_accuracy", "label_accuracy",
          "precision", "recall", "coverage", "verification_rate")  # fmt: skip

#: Budgets from the one that is nearest to a publication's.
BUDGETS = ("paper", "standard", "smoke")


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published figure; the columns are explained in ``results/reference/README.md``."""

    attack: str
    dataset: str
    target: str
    public: str
    resolution: str
    metric: str
    variant: str
    value: float
    std: float
    unit: str
    evaluator: str
    targets: str
    samples: str
    source_bib: str
    source: str
    read: str
    notes: str


def collect_reference(results: Path) -> tuple[list[Published], dict[str, str]]:
    """Return the published figures below ``results``, sorted, and by name why a file was left out."""
    found: list[Published] = []
    aside: dict[str, str] = {}
    for path in sorted((results / "reference").glob("*.csv")):
        try:
            found += read_reference(path)
        except (ValueError, csv.Error, OSError, UserError) as reason:
            aside[f"reference/{path.name}"] = str(reason)
    return sorted(found, key=lambda one: (one.dataset, one.target, one.attack, one.metric, one.source_bib)), aside


def read_reference(path: Path) -> list[Published]:
    """Return the figures of one file.

    Raises:
        ValueError: If it has other columns, or a line says nothing that can be quoted; with the reason.
    """
    with plain_file(path, str(path), TEXT).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"its columns are not {', '.join(COLUMNS)}")
        return [_published(number, line, path.stem) for number, line in enumerate(reader, 2)]


def _published(number: int, line: Mapping[str, str | None], stem: str) -> Published:
    if None in line.values() or None in line:
        raise ValueError(f"line {number} has another number of columns than the first")
    words = {name: str(text) for name, text in line.items() if name not in ("value", "std")}
    try:
        value, std = float(line["value"] or ""), float(line["std"] or NAN)
    except ValueError as error:
        raise ValueError(f"value or std of line {number} is no number") from error
    highest = 1.0 if words["metric"] in SHARES else math.inf
    if not 0 <= value <= highest:
        raise ValueError(f"the value {value} of line {number} is no share from 0 to 1" if highest == 1 else
                         f"the value {value} of line {number} is negative")  # fmt: skip
    if words["source_bib"] != stem:
        raise ValueError(f"line {number} cites '{words['source_bib']}', but the file bears the name of '{stem}'")
    if missing := [name for name in ("dataset", "target", "metric", "source", "read") if not words[name]]:
        raise ValueError(f"line {number} has no {missing[0]}")
    if words["read"] not in READ:
        raise ValueError(f"line {number} was read as '{words['read']}', which is none of {', '.join(READ)}")
    return Published(value=value, std=std, **words)


def ours(figure: Published, groups: Sequence[Group]) -> tuple[Group, Number] | None:
    """Return what was measured here of the same thing without a defense, with the budget nearest to a publication's.

    The same is dataset, target, attack (where the figure is of one), metric and variant; evaluators differ.
    """
    same = [
        (BUDGETS.index(group.facts["budget"]), group, number)
        for group in groups
        if (group.facts["dataset"], group.facts["target"], group.facts["defense"])
        == (figure.dataset, figure.target, "none")
        and figure.attack in ("", group.facts["attack"])
        for number in group.numbers
        if (number.score.metric, number.score.variant) == (figure.metric, figure.variant) and number.seeds
    ]
    if not same:
        return None
    _, group, number = min(same, key=lambda one: (one[0], one[2].score.evaluator != "vote", one[1].group_id))
    return group, number


def protocol(group: Group) -> str:
    """Return how a group's number came about, as far as it decides a comparison: ``64 px, 300 targets of 5 ...``."""
    budget, size = group.config["budget"], group.config["dataset"].get("size")
    pixels = f"{size} px, " if size else ""
    return f"{pixels}{budget['targets']} targets of {budget['samples']} samples, budget {group.facts['budget']}"
