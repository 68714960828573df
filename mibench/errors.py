"""The errors a person can meet, each written as one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path


class MibenchError(Exception):
    """Base of every error that mibench raises on purpose; its text is the whole message for the user."""


class UserError(MibenchError):
    """A mistake in the command, the configuration or a file of the user; the command line exits with 2."""


#: What mibench does not start without, by the names of the modules.
REQUIRED = (
    "antlr4", "filelock", "hydra", "hydra_plugins", "numpy", "omegaconf", "pandas", "PIL", "pyarrow", "safetensors",
    "scipy", "sklearn", "torch", "torchvision", "tqdm", "yaml",
)  # fmt: skip


def outside(error: ImportError) -> str | None:
    """Return the sentence for a Python that lacks what mibench needs; None for any other failed import.

    >>> outside(ModuleNotFoundError("No module named 'torch'", name="torch")).split("; ")[1]
    'enter the environment in which it was installed (source .venv/bin/activate) and start again.'
    """
    if sys.version_info < (3, 11):  # noqa: UP036  (who starts it outside its environment may have any)
        lacking = f"is Python {sys.version_info[0]}.{sys.version_info[1]}, and mibench needs 3.11 or newer"
    elif (name := (error.name or "").partition(".")[0]) in REQUIRED:
        lacking = f"cannot import {name} ({told(error)}), which mibench needs"
    else:
        return None
    return (
        f"{sys.executable or 'This Python'} {lacking}; enter the environment in which it was installed "
        "(source .venv/bin/activate) and start again."
    )


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


def told(error: BaseException) -> str:
    """Return what an exception says, on one line and without a full stop, for the middle of a sentence.

    >>> told(OSError(28, "No space left on device")), told(ValueError())
    ('No space left on device', 'ValueError')
    """
    said = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return " ".join(said.split()).rstrip(".") or type(error).__name__


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


class TimeLimitReached(BaseException):
    """A cell took longer than its ``time_limit``; as no ``Exception`` it is not taken for an error on the way."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM); as no ``Exception`` it is not taken for an error on the way."""
