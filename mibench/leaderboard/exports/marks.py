"""Numbers and verdicts as a paper shows them: three digits, an interval, a mark and a legend of the marks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mibench.leaderboard.eligible import SPOILT, spoilt
from mibench.leaderboard.exports.crosstab import Cell, Crosstab
from mibench.leaderboard.language import WORDS, order
from mibench.leaderboard.lines import interval, number


@dataclass(frozen=True)
class Mark:
    """The mark of a verdict in one table or figure.

    Attributes:
        sign: The character of :mod:`mibench.leaderboard.language`.
        place: Tells it from other verdicts of that sign in the same table, from 1; 0 where it is alone.
    """

    sign: str
    place: int = 0

    @property
    def text(self) -> str:
        """The mark as plain text: ``○¹``."""
        return self.sign + (str(self.place).translate(RAISED) if self.place else "")


RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def marks_of(verdicts: Iterable[str]) -> dict[str, Mark]:
    """Return the mark of every verdict that occurs, the strongest evidence first.

    >>> {word: mark.text for word, mark in marks_of(["no evidence", "leak", "below null"]).items()}
    {'leak': '●', 'below null': '○¹', 'no evidence': '○²'}
    """
    words = sorted({one for one in verdicts if one in WORDS}, key=order)
    signs = [WORDS[word].mark for word in words]
    return {
        word: Mark(sign, signs[: place + 1].count(sign) if signs.count(sign) > 1 else 0)
        for place, (word, sign) in enumerate(zip(words, signs, strict=True))
    }


def value_of(cell: Cell) -> tuple[str, str]:
    """Return a cell's number in three significant digits and its interval, each empty where there is none."""
    value, low, high = cell.span
    return number(value, signed=cell.show == "lift"), interval(low, high)


def caption_of(table: Crosstab) -> str:
    """Return what the numbers are: the metric, of what, and from how many targets and seeds."""
    what = f"lift of {table.metric} over its control" if table.show == "lift" else table.metric
    unit = f" in {table.unit}" if table.unit else ""
    facts = ", ".join(f"{name} {value}" for name, value in table.facts.items() if value)
    options = f"; {', '.join(table.options)}" if table.options else ""
    rows, columns = (axis.replace("_", " ") for axis in table.by)
    return (
        f"{what[0].upper()}{what[1:]}{unit} with its 95 % interval, by {rows} (rows) and {columns} (columns): "
        f"{facts}{options}; {_counts(table)}."
    )


def legend_of(table: Crosstab) -> list[tuple[Mark, str, str]]:
    """Return mark, word and meaning of every verdict in a table."""
    marks = marks_of(one.verdict for one in table.measured)
    return [(mark, word, WORDS[word].meaning) for word, mark in marks.items()]


def notes_of(table: Crosstab) -> list[str]:
    """Return what a reader must know beside the marks, a sentence each."""
    notes = []
    judges = {one.group.facts["judged_by"] for one in table.measured} - {""}
    if len(judges) > 1:
        notes.append("Not all cells were judged by the same evaluation models.")
    missing: dict[str, list[str]] = {}
    useless = []
    for (row, column), cell in sorted(table.cells.items()):
        if cell.measured and spoilt(cell.group):
            useless.append(f"{row.text} / {column.text}")
        if not cell.measured:
            missing.setdefault(cell.reason, []).append(f"{row.text} / {column.text}")
    if useless:
        notes.append(f"Not compared, since the model is {SPOILT}: {', '.join(useless)}.")
    notes += [f"Not measured: {', '.join(places)} ({reason.rstrip('.')})." for reason, places in missing.items()]
    return notes


def _counts(table: Crosstab) -> str:
    known = [one.number for one in table.measured if one.number is not None and not one.group.old]
    targets = [one.score.n for one in known]  # rows of the first schema count reconstructions
    seeds = [one.number.seeds for one in table.measured if one.number is not None]
    return f"n = {_range(targets)} targets, {_range(seeds)} {'seed' if set(seeds) == {1} else 'seeds'}"


def _range(counts: Iterable[int]) -> str:
    known = sorted(set(counts))
    if not known:
        return "an unknown number of"
    return str(known[0]) if len(known) == 1 else f"{known[0]} to {known[-1]}"
