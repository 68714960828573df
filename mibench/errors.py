"""The errors a person can meet, each written as one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path


class MibenchError(Exception):
    """Base of every error that mibench raises on purpose; its text is the whole message for the user."""


class UserError(MibenchError):
    """A mistake in the command, the configuration or a file of the user; the command line exits with 2."""


class UnknownNameError(UserError):
    """A name that no catalogue entry bears.

    Args:
        kind: What was looked for, in the singular (``"attack"``).
        name: What the user wrote.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        near = difflib.get_close_matches(name, names, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}."
        super().__init__(f"There is no {kind} '{name}'; {hint}")


class IncompatibleCellError(UserError):
    """A cell whose parts cannot meet, or whose defense cannot change what the attack sees.

    Attacks raise it, in one sentence, for a victim they are not defined for (no batch norm, say).
    """


class DatasetNotFoundError(UserError):
    """The files of a dataset are not where they should be.

    Args:
        name: The dataset's id.
        looked: Every path that was tried.
        how: Where the data come from, as a clause ("download it from ...").
    """

    def __init__(self, name: str, looked: Sequence[Path], how: str) -> None:
        places = " and ".join(str(path) for path in looked)
        super().__init__(
            f"Dataset '{name}' was not found at {places}: {how}, or point paths.data (environment variable "
            "MIBENCH_DATA) at the folder that holds it."
        )


class NotGrantedError(UserError):
    """An attack asked for something that the threat model of the cell does not grant."""


class WeightsMissingError(MibenchError):
    """A pre-trained network that a metric needs is not on this machine: its rows are skipped for this reason."""


class FetchError(MibenchError):
    """A file cannot be fetched: no network, another file than the published one, or a person has to do it."""


class NotMeasurableError(MibenchError):
    """A metric is not defined for this cell (top-5 of five classes): its row is skipped for this reason."""


class StoreError(MibenchError):
    """An artifact in the store cannot be read or written."""


class QueryRefused(MibenchError):
    """The victim refused a query (query monitoring, rate limit): the attack ends at its best so far."""


class BudgetExhausted(QueryRefused):
    """The attacker's own query budget is spent: the attack ends at its best so far."""
