"""How a cell is made again, as a page tells it."""

from __future__ import annotations

from dataclasses import dataclass


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
