"""One line of a table: the same columns in the same order in tables of results, closing tables and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mibench.card import headline_of
from mibench.leaderboard.language import order, shown
from mibench.leaderboard.scoring import Score

if TYPE_CHECKING:
    import pyarrow as pa

    from mibench.leaderboard.groups import Group

#: The columns of every table of cells; a table may add others behind them.
COLUMNS = ("attack", "access", "defense", "target", "value", "control", "lift", "verdict", "accuracy", "seeds")

#: Of these the ones that hold numbers, which a table aligns to the right.
NUMBERS = ("value", "control", "lift", "accuracy", "seeds")

#: Significant digits on a terminal and in a report.
DIGITS = 4


def number(value: float, signed: bool = False, digits: int = 3) -> str:
    """Return a number with so many significant digits, as the page writes it; empty for NaN.

    >>> number(0.97512), number(-0.0715, signed=True), number(80.2606), number(4321.0), number(6.25e-8)
    ('0.975', '-0.0715', '80.3', '4321', '6.2e-08')
    >>> number(0.97512, digits=4), number(80.2606, digits=4), number(0.5, signed=True, digits=4)
    ('0.9751', '80.26', '+0.5')
    """
    if math.isnan(value):
        return ""
    size, sign = abs(value), "+" if signed and value > 0 else ""
    if 0 < size < 1e-4:
        return f"{sign}{value:.{digits - 2}e}"
    if math.isinf(size):
        return f"{sign}{value}"
    text = f"{value:.{max(0, digits - 1 - math.floor(math.log10(size or 1)))}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return f"{sign}{text}" if text != "-0" else "0"


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval in brackets; empty where an end is NaN.

    >>> interval(0.1, 0.25), interval(float("nan"), 1.0)
    ('[0.1, 0.25]', '')
    """
    return (
        "" if math.isnan(low) or math.isnan(high) else f"[{number(low, False, digits)}, {number(high, False, digits)}]"
    )


def name_of(score: Score) -> str:
    """Return metric, variant and evaluator of a number as words."""
    return " ".join(part for part in (score.metric, score.variant, score.evaluator) if part)


def headline(scores: Sequence[Score], task: str, modality: str) -> Score | None:
    """Return the number its task is read by; another one of the same metric where that could not be measured."""
    metric, variant, evaluator = headline_of(task, modality)
    there = [one for one in scores if one.status == "ok" and (one.metric, one.variant) == (metric, variant)]
    return next((one for one in there if one.evaluator == evaluator), there[0] if there else None)


def told(score: Score, digits: int = DIGITS) -> str:
    """Return a number beside all that it is compared with, as words.

    >>> told(Score(metric="psnr", value=21.5, unit="dB", control=8.0, null=12.25, null_name="public_mean"))
    'psnr 21.5 dB, control 8, null 12.25 (public_mean)'
    """
    value = " ".join(part for part in (name_of(score), *_value(score, digits)) if part)
    parts = [value]
    if not math.isnan(score.control):
        parts.append(f"control {number(score.control, False, digits)}")
    if not math.isnan(score.lift):
        parts.append(f"lift {' '.join(filter(None, _lift(score, digits)))}")
    if score.null_name:
        parts.append(f"null {number(score.null, False, digits)} ({score.null_name})")
    return ", ".join(parts)


def _value(score: Score, digits: int) -> list[str]:
    return [number(score.value, False, digits), score.unit, interval(score.ci_low, score.ci_high, digits)]


def _lift(score: Score, digits: int) -> list[str]:
    return [number(score.lift, True, digits), interval(score.lift_low, score.lift_high, digits)]


@dataclass(frozen=True, kw_only=True)
class Line:
    """Cells that differ in the seed alone, as one line of a table.

    Attributes:
        facts: Their columns (``attack``, ``access``, ``defense``, ``target``, ``dataset``, ``task`` ...).
        score: The headline number.
        accuracy: The defended model's accuracy, from 0 to 1; NaN where it was not measured.
        seeds: Seeds behind the number: ``3``, or ``2 of 3``.
        cells: Their ids, by seed.
        group_id: The id of the group.
    """

    facts: Mapping[str, str]
    score: Score
    accuracy: float
    seeds: str
    cells: Sequence[str]
    group_id: str

    @property
    def verdict(self) -> str:
        """A word of :mod:`mibench.leaderboard.verdicts`, or the status of a number that could not be measured."""
        return self.score.evidence or ("" if self.score.status == "ok" else self.score.status)

    def written(self, digits: int = DIGITS, options: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return what stands in each of ``COLUMNS``.

        Args:
            digits: Significant digits.
            options: What stands in parentheses behind a column's entry, by column.
        """
        behind = {name: f" ({text})" for name, text in (options or {}).items() if text}
        names = {name: self.facts[name] + behind.get(name, "") for name in COLUMNS[:4]}
        return names | {
            "value": " ".join(filter(None, _value(self.score, digits))),
            "control": number(self.score.control, False, digits),
            "lift": " ".join(filter(None, _lift(self.score, digits))),
            "verdict": shown(self.verdict),
            "accuracy": number(self.accuracy, False, digits),
            "seeds": self.seeds,
        }


def strength(line: Line) -> tuple[Any, ...]:
    """Return the place of a line in its table: the strongest evidence first.

    Of one verdict the one whose lift lies surely higher stands first, then the names decide, so that the order never
    depends on that of the files.
    """
    low = line.score.lift_low
    names = (line.facts[name] for name in COLUMNS[:4])
    return order(line.verdict), math.isnan(low), 0.0 if math.isnan(low) else -low, *names, line.group_id


def by_column(words: Iterable[str]) -> dict[str, str]:
    """Return options by the column behind whose entry they stand, for :meth:`Line.written`.

    >>> by_column(["defense.a1=1", "budget.samples=4", "attack.lr=2"])
    {'defense': 'a1=1', 'target': 'budget.samples=4', 'attack': 'lr=2'}
    """
    found: dict[str, list[str]] = {}
    for word in words:
        axis, _, option = word.lstrip("+").partition(".")
        own = axis in ("attack", "defense")
        found.setdefault(axis if own else "target", []).append(option if own else word)
    return {column: ", ".join(options) for column, options in found.items()}


def line_of(group: Group, score: Score, seeds: int) -> Line:
    """Return the line of a group by one of its numbers."""
    return Line(
        facts=group.facts,
        score=score,
        accuracy=group.accuracy,
        seeds=str(seeds) if seeds == len(group.cells) else f"{seeds} of {len(group.cells)}",
        cells=[cell.cell_id for cell in group.cells],
        group_id=group.group_id,
    )


def lines_of(table: pa.Table) -> list[Line]:
    """Return the lines of cells whose headline was measured, the strongest evidence first.

    Args:
        table: Rows of whole cells with the columns of a shard.
    """
    from mibench.leaderboard.groups import groups_of
    from mibench.leaderboard.tables import encoded, in_order

    found = []
    for group in groups_of(in_order(encoded(table.replace_schema_metadata(None)))):
        seeds = {id(one.score): one.seeds for one in group.numbers}
        score = headline([one.score for one in group.numbers], group.facts["task"], group.facts["modality"])
        if score is not None:
            found.append(line_of(group, score, seeds[id(score)]))
    return sorted(found, key=strength)


def sections(lines: Sequence[Line]) -> dict[str, list[Line]]:
    """Return lines by what their number is (``digits, agreed_accuracy vote``); numbers of two kinds share no table.

    The section with the strongest evidence stands first, and so do the lines in it.
    """
    found: dict[str, list[Line]] = {}
    for line in sorted(lines, key=strength):
        found.setdefault(f"{line.facts['dataset']}, {name_of(line.score)}", []).append(line)
    return found
