"""Files of texts: read as data, with one sentence for what cannot be used."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError, told
from mibench.limits import TEXT, content

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Corpus:
    """Labelled texts before they are parted.

    Attributes:
        texts: The texts, none of them empty.
        labels: The class id of each.
        classes: The names of the classes.
        roles: Of each text the part that it can stand in: ``private``, ``public`` or ``held_out``; empty where every
            text can stand in every part.
        reading: Sentences on what was left out.
    """

    texts: Sequence[str]
    labels: Sequence[int]
    classes: tuple[str, ...]
    roles: Sequence[str] = ()
    reading: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        texts: Sequence[Any],
        labels: Sequence[int],
        classes: tuple[str, ...],
        where: str,
        roles: Sequence[str] = (),
        reading: tuple[str, ...] = (),
    ) -> Corpus:
        """Return a corpus without empty texts, which are counted.

        Args:
            texts: The texts. A value that is not a string (a missing value of a table) counts as an empty text.
            labels: The class id of each.
            classes: The names of the classes.
            where: How messages name the file.
            roles: As the attribute.
            reading: Sentences to which that on empty texts is added.

        Raises:
            UserError: If no text is left.
        """
        kept = [row for row, text in enumerate(texts) if isinstance(text, str) and text.strip()]
        if not kept:
            raise UserError(f"{where} holds no text.")
        if empty := len(texts) - len(kept):
            reading = (*reading, f"Empty texts of {where} left out: {empty}.")
        return cls(
            [texts[row].strip() for row in kept],
            [labels[row] for row in kept],
            classes,
            [roles[row] for row in kept] if roles else (),
            reading,
        )


def text_of(path: Path, where: str, encodings: Sequence[str] = ("utf-8-sig",)) -> str:
    """Return the text of a file, in the first of several encodings that fits.

    Args:
        path: The file.
        where: How messages name it.
        encodings: The encodings; UTF-8 with or without a mark of byte order unless they are said.

    Raises:
        UserError: If it cannot be read or is in none of them; it names the line.
    """
    raw = content(path, where, TEXT)
    for encoding in encodings:
        try:
            return raw.decode(encoding)
        except UnicodeDecodeError as error:
            first = error
    line = raw.count(b"\n", 0, first.start) + 1
    raise UserError(
        f"{where} is not UTF-8 (byte 0x{raw[first.start]:02x} in line {line}); convert it, as with "
        "iconv -f latin1 -t utf-8."
    )


def lines_of(path: Path, where: str, encodings: Sequence[str] = ("utf-8-sig",)) -> list[str]:
    """Return the lines of a file as :func:`text_of` reads it, parted at line feeds alone; empty ones count as lines.

    Raises:
        UserError: If it cannot be read.
    """
    lines = text_of(path, where, encodings).split("\n")
    return [line.rstrip("\r") for line in (lines[:-1] if lines[-1] == "" else lines)]


def table_of(path: Path, where: str, **options: Any) -> pd.DataFrame:
    """Return a table of texts.

    Args:
        path: The file, in UTF-8.
        where: How messages name it.
        options: Options of :func:`pandas.read_csv`.

    Raises:
        UserError: If it cannot be read.
    """
    import pandas as pd

    text = text_of(path, where)
    try:
        table: pd.DataFrame = pd.read_csv(io.StringIO(text), **options)
    except (ValueError, OSError) as error:  # pandas' own errors are of the first kind
        raise UserError(f"{where} cannot be read as a table ({told(error)}).") from error
    return table


def records_of(path: Path, where: str) -> list[Mapping[str, Any]]:
    """Return the objects of a file of JSON lines; empty lines are passed over.

    Raises:
        UserError: If the file cannot be read, or a line does not hold a JSON object. The message names the line.
    """
    found: list[Mapping[str, Any]] = []
    for number, line in enumerate(lines_of(path, where), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where} has no JSON in line {number} ({told(error)}); put one object a line.") from error
        if not isinstance(record, dict):
            raise UserError(f'{where} has no object in line {number}; put one a line, as {{"text": "..."}}.')
        found.append(record)
    return found


def labels_of(values: Sequence[Any], names: Sequence[str], where: str, first: int = 0) -> list[int]:
    """Return the class ids of a column that counts classes from ``first`` on.

    Raises:
        UserError: If a value is none of them; it is shown.
    """
    known = {str(first + number): number for number in range(len(names))}
    if odd := [value for value in values if str(value) not in known]:
        raise UserError(f"{where} has the label '{odd[0]}', which is none of {', '.join(known)} ({', '.join(names)}).")
    return [known[str(value)] for value in values]
