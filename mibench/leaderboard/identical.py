"""Groups whose numbers agree to the last bit: settings of an option that changed nothing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pandas as pd

Name = TypeVar("Name", bound=Hashable)

#: What tells two rows of a group apart.
ROW = ("metric", "variant", "evaluator", "seed")


def identical_groups(groups: Mapping[Name, pd.DataFrame], values: str = "value") -> list[list[Name]]:
    """Return which groups have the same numbers bit for bit, each class of two or more in the order given.

    Levels of a sweep that come out identical are one measurement: an option that does nothing there. Draw them once and
    say which they are.

    Args:
        groups: Of every group (a level of a sweep) its measured rows, with the columns of :data:`ROW` that there are,
            and ``values``.
        values: The column that is compared; rows without a number count as equal where both have none.

    Returns:
        Classes of names. A group without a single number is in none, and neither are groups that hold other rows.
    """
    seen: dict[tuple[Any, ...], list[Name]] = {}
    for name, rows in groups.items():
        if rows[values].notna().any():
            seen.setdefault(_numbers(rows, values), []).append(name)
    return [names for names in seen.values() if len(names) > 1]


def said_of(names: Sequence[object], option: str) -> str:
    """Return a sentence on levels of an option that are identical.

    >>> said_of([0.1, 0.2, 0.4], "defense.sigma")
    'defense.sigma=0.1, 0.2 and 0.4 give the same numbers to the last bit, so the option changes nothing there.'
    """
    *first, last = (str(name) for name in names)
    levels = f"{option}={', '.join(first)} and {last}"
    return f"{levels} give the same numbers to the last bit, so the option changes nothing there."


def _numbers(rows: pd.DataFrame, values: str) -> tuple[Any, ...]:
    keys = [key for key in ROW if key in rows]
    ordered = rows.sort_values(keys, kind="stable")
    named = tuple(ordered[keys].astype(str).itertuples(index=False, name=None))
    bits = np.nan_to_num(ordered[values].to_numpy(dtype=np.float64), nan=np.inf).tobytes()
    return named, bits
