"""Edits of methods that their truth tests must notice: what stands in ``tests/edits``, read and applied.

``tests/edits/AXIS/METHOD.yaml`` is a list. An edit takes one thing away that a docstring states and names the test that
then fails:

- ``kind``: ``term``, ``sign``, ``scale``, ``schedule``, ``selection`` or ``start``.
- ``what``: in words, what is no longer so.
- ``file``: what is edited; by default the method's own file.
- ``find``, ``replace``: the text, which stands in the file once, and what takes its place.
- ``test``: the file or node that must fail; by default the method's truth test ``tests/AXIS/test_METHOD.py``.
- ``unnoticeable``: why no test can notice the edit, in words that stand in the docstring of the edited file too. It is
  then not run and not counted.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

#: What an edit may take away.
KINDS = ("term", "sign", "scale", "schedule", "selection", "start")

#: Methods of which there is nothing to take away.
NOTHING_TO_EDIT = {"defenses/none", "priors/none"}

#: The axes whose methods have edits.
AXES = ("attacks", "defenses", "priors")

#: The fewest edits of a method.
LEAST = 4


class StaleEditError(Exception):
    """An edit that no longer fits the file that it is of."""


@dataclass(frozen=True)
class Edit:
    """One edit.

    Attributes:
        method: ``AXIS/METHOD``.
        number: Its place in the method's list, from 1.
        kind: One of ``KINDS``.
        what: What is no longer so.
        file: The edited file, from the checkout's root.
        find: The text that is replaced.
        replace: What takes its place.
        test: The test that must fail.
        unnoticeable: Why no test can notice it; empty where one can.
    """

    method: str
    number: int
    kind: str
    what: str
    file: str
    find: str
    replace: str
    test: str
    unnoticeable: str = ""

    @property
    def name(self) -> str:
        """What ``make edits`` calls it."""
        return f"{self.method}:{self.number}"

    def applied(self, text: str) -> str:
        """Return the edited text of a file.

        Raises:
            StaleEditError: If the text to replace does not stand there exactly once, or what comes out is no Python.
        """
        where = f"tests/edits/{self.method}.yaml, edit {self.number} ({self.what})"
        if (count := text.count(self.find)) != 1:
            raise StaleEditError(
                f"{where}: {self.file} holds the text {self.find!r} {count} times instead of once; adjust 'find' to "
                "the file as it is now."
            )
        edited = text.replace(self.find, self.replace)
        if edited == text:
            raise StaleEditError(
                f"{where}: 'find' and 'replace' are the same text; make 'replace' take something away."
            )
        try:
            ast.parse(edited)
        except SyntaxError as error:
            raise StaleEditError(
                f"{where}: {self.file} is no Python any more ({error.msg}); adjust 'replace'."
            ) from error
        return edited


def methods(root: Path) -> list[str]:
    """Return every method of a checkout as ``AXIS/METHOD``."""
    files = (file for axis in AXES for file in sorted((root / "mibench" / axis).glob("*.py")))
    names = (f"{file.parent.name}/{file.stem}" for file in files if file.stem not in ("__init__", "base"))
    return [name for name in names if name not in NOTHING_TO_EDIT]


def read_edits(root: Path) -> list[Edit]:
    """Return the edits of a checkout, by method."""
    return [edit for method in methods(root) for edit in of_method(root, method)]


def of_method(root: Path, method: str) -> Iterator[Edit]:
    """Yield the edits of one method; none where it has no file."""
    axis, name = method.split("/")
    path = root / "tests" / "edits" / axis / f"{name}.yaml"
    entries: list[dict[str, Any]] = yaml.safe_load(path.read_text()) if path.exists() else []
    usual = {"file": f"mibench/{axis}/{name}.py", "test": f"tests/{axis}/test_{name}.py"}
    for number, entry in enumerate(entries, 1):
        yield Edit(method, number, **(usual | entry))
