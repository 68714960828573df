"""Columns of JSON in the shortest of a few forms, numbers of four digits, and text that cannot end a script."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np

#: Significant digits on the page; the parquet file has all of them.
DIGITS = 4


def rounded(values: Sequence[float]) -> list[float | int | None]:
    """Return numbers with ``DIGITS`` significant digits, whole ones as integers, None for NaN and infinity.

    >>> rounded([0.123456789, float("nan"), 123456.789, -6.25e-8, 2.0])
    [0.1235, None, 123500, -6.25e-08, 2]
    """
    if not len(values):
        return []
    array = np.array(values, dtype=np.float64)
    finite = np.isfinite(array)
    size = np.abs(np.where(finite & (array != 0), array, 1))
    power = DIGITS - 1 - np.floor(np.log10(size))
    up, down = 10.0 ** np.maximum(power, 0), 10.0 ** np.maximum(-power, 0)
    short = (np.round(np.where(finite, array, 0) * up / down) / up * down).tolist()
    return [
        None if not known else int(value) if value == int(value) else value
        for value, known in zip(short, finite.tolist(), strict=True)
    ]


def number(value: float) -> float | int | None:
    """Return one number as :func:`rounded` does."""
    return rounded([value])[0]


def coded(values: Sequence[Any]) -> Any:
    """Return a column in the form that has the fewest entries.

    ``[...]``
        As it is.
    ``{"d": [...], "c": [...]}``
        Its different strings, and of every row the place among them.
    ``{"r": [value, times, ...]}``
        Runs of equal values; with ``d``, of equal places.

    >>> coded(["a", "b"] * 20)["d"], coded([7] * 20), coded(["a"] * 20), coded([1, 2])
    (['a', 'b'], {'r': [7, 20]}, {'d': ['a'], 'r': [0, 20]}, [1, 2])
    """
    kinds = set(map(type, values))
    if kinds == {str}:
        words, codes = _places(values)
        if len(words) > len(values) / 2:
            return values
        runs = _runs(codes)
        return {"d": words, "r": runs} if len(runs) < len(codes) else {"d": words, "c": codes}
    if kinds and kinds <= {int, float, type(None)}:
        runs = _runs(values)
        return {"r": runs} if len(runs) < len(values) else values
    return values


def listed(rows: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return a column of lists, their different entries once: ``{"d": [...], "l": [[place, ...], ...]}``.

    >>> listed([["a", ["b", "#/"]], ["a"]])
    {'d': ['a', ['b', '#/']], 'l': [[0, 1], [0]]}
    """
    entries: dict[str, int] = {}
    found: list[Any] = []
    codes = []
    for row in rows:
        own = []
        for entry in row:
            key = entry if isinstance(entry, str) else json.dumps(entry)
            place = entries.setdefault(key, len(entries))
            if place == len(found):
                found.append(entry)
            own.append(place)
        codes.append(own)
    return {"d": found, "l": codes}


def _places(values: Sequence[str]) -> tuple[list[str], list[int]]:
    place: dict[str, int] = {}
    codes = [place.setdefault(value, len(place)) for value in values]
    return list(place), codes


def _runs(values: Sequence[Any]) -> list[Any]:
    return [part for value, run in groupby(values) for part in (value, len(list(run)))]


def columns(rows: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return a table as columns in their shortest forms.

    Raises:
        ValueError: If they differ in length.
    """
    lengths = {name: len(column) for name, column in rows.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"Columns of unequal length: {lengths}.")
    return {name: coded(column) for name, column in rows.items()}


class Texts:
    """Texts that many groups share; each stands once and is named by its number."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}
        self._last: dict[str, tuple[Any, int]] = {}

    def place(self, text: str) -> int:
        """Return the number of a text."""
        return self._places.setdefault(text, len(self._places))

    def block(self, name: str, value: Any) -> int:
        """Return the number of a block of a configuration as JSON; neighbours mostly have the same one."""
        if name not in self._last or self._last[name][0] != value:
            self._last[name] = (value, self.place(json.dumps(value, sort_keys=True)))
        return self._last[name][1]

    def listed(self) -> list[str]:
        """Return all texts by number."""
        return list(self._places)


def as_json(content: Any) -> str:
    r"""Return JSON that may stand inside a script of a page: it holds none of ``</``, ``<!--`` and ``<script``.

    >>> as_json(["</script>", "<!--", 0.5, None])
    '["<\\/script>","<\\u0021--",0.5,null]'

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = text.replace("</", "<\\/").replace("<!--", "<\\u0021--").replace("<script", "<\\u0073cript")
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
