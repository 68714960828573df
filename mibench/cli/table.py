"""The table a finished cell prints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mibench.leaderboard.scoring import Score
from mibench.leaderboard.verdicts import judged
from mibench.planning.plan import Plan

if TYPE_CHECKING:
    import pandas as pd


def print_scores(scores: Sequence[Score], plan: Plan, notes: Sequence[str]) -> None:
    """Print one line per number: value, 95 % interval, control, lift, strongest null, and what it is evidence of."""
    cards = plan.cards
    print(
        f"\n{cards.attack.title} ({plan.access}) on {cards.dataset.name}, {cards.setting.name}, {cards.target.name}, "
        f"defense {cards.defense.name}, seed {plan.config['seed']}, cell {plan.cell_id}\n"
    )
    table = [("metric", "value", "95 % interval", "control", "lift", "null", "evidence")]
    missing: dict[str, list[str]] = {}
    for one in scores:
        if one.status != "ok":
            missing.setdefault(f"{one.status}: {one.reason}", []).append(label(one))
            continue
        interval = "" if math.isnan(one.ci_low) else f"[{number(one.ci_low)}, {number(one.ci_high)}]"
        value = f"{number(one.value)} {one.unit}".strip()
        lift, said = number(one.lift, signed=True), one.evidence
        said += f" ({one.confirmed_by})" if one.confirmed_by else ""
        null = f"{number(one.null)} ({one.null_name})" if one.null_name else ""
        table.append((label(one), value, interval, number(one.control), lift, null, said))
    print_table(table)
    for reason, names in missing.items():
        print(f"{', '.join(names)} {reason}".strip())
    for note in notes:
        print(note)
    if missing or notes:
        print()


def print_table(table: Sequence[Sequence[str]]) -> None:
    """Print lines of equally many cells in columns, and an empty line."""
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    print()


def label(one: Score) -> str:
    """Return the name of a number: metric, variant and evaluator."""
    return " ".join(part for part in (one.metric, one.variant, one.evaluator) if part)


def number(value: float, signed: bool = False) -> str:
    """Return a number with four significant digits, empty for NaN."""
    if math.isnan(value):
        return ""
    text = f"{value:+.4g}" if signed else f"{value:.4g}"
    return text


def scores_of(frame: pd.DataFrame) -> list[Score]:
    """Return the scores of stored rows."""
    names = [field.name for field in dataclasses.fields(Score)]
    rows = frame[names].to_dict("records")
    scores = [Score(**{str(name): value for name, value in row.items()}) for row in rows]
    return judged(scores, old=bool((frame["schema_version"] < 2).any()))


def notes_of(frame: pd.DataFrame) -> list[str]:
    """Return the notes of stored rows."""
    return [note for note in str(frame["notes"].iloc[0]).split("\n") if note]
