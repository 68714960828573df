"""The errors a person can meet, each written as one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path


class MibenchError(Exception):
    """Base of every error that mibench raises on purpose; its text is the whole message for the user."""


class UserError(MibenchError):
    """A mistake in the command, the configuration or a file of the user; the command line exits with 2."""


#: Control characters but tab and line feed, separators of lines, and marks that turn the direction of a text.
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    r"""Return a text without what a terminal would take for a command or a change of direction.

    >>> printable("a\x1b[2J\u202eb")
    'a\ufffd[2J\ufffdb'
    """
    return CONTROLS.sub("\ufffd", text)


def nearest(name: str, known: Iterable[str], otherwise: str) -> str:
    """Return ``did you mean ...?`` with the names that resemble ``name``, or ``otherwise`` where none does.

    Of dotted names the last part is compared, with those of the same block; and a last part is found in any block.
    """
    names = sorted(known)
    block, dot, last = name.rpartition(".")
    beside = [one.rpartition(".")[2] for one in names if one.rpartition(".")[0] == block]
    elsewhere = [one for one in names if one.rpartition(".")[2] == last]
    similar = [f"{block}{dot}{one}" for one in difflib.get_close_matches(last, beside, n=3)]
    near = [*similar, *elsewhere] if dot else [*elsewhere, *similar]
    return f"did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else otherwise


class UnknownNameError(UserError):
    """A name that no catalogue entry bears.

    Args:
        kind: What was looked for, in the singular (``"attack"``).
        name: What the user wrote.
        known: The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        hint = nearest(name, names, f"known: {', '.join(names) or 'none'}.")
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


class NotStoredError(UserError):
    """A result that was to be read from the store is not there."""
