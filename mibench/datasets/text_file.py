"""Anyone's texts: a text file with one a line, JSON lines, or a table with a column of texts.

``dataset.file`` ends in ``.txt``, ``.jsonl``, ``.csv`` or ``.tsv``; of the latter three ``dataset.column`` names the
column (or key) of the texts, and ``dataset.label_column`` that of their classes, which are numbered in sorted order.
Without labels all texts are of one class, which is enough for a language model. All parts are drawn from the file by
seed, so what the attacker owns is of the same kind as what is private, and no text is in both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mibench.card import DatasetCard
from mibench.datasets.families.text_files import Corpus, lines_of, records_of, table_of
from mibench.datasets.families.texts import Texts
from mibench.errors import UserError, nearest
from mibench.options import Several

ENDINGS = (".txt", ".jsonl", ".csv", ".tsv")


class TextFile(Texts):
    """Texts of one's own."""

    card = DatasetCard(
        name="text_file",
        title="A file of texts",
        modalities=("text",),
        licence="the owner's",
        may_show=False,
        tasks=("sequence",),
    )

    file: Path | str | None = None
    """The texts."""
    column: str = "text"
    """The column, or key, of the texts."""
    label_column: str | None = None
    """The column, or key, of their classes; null makes all texts one class."""

    length: Several = 40
    """Tokens of a text, ``[CLS]`` and ``[SEP]`` among them; longer texts are left out."""

    def __post_init__(self) -> None:
        """Refuse a missing file, another kind of file, and labels of a file that has no columns."""
        super().__post_init__()
        if not self.file:
            raise UserError("Dataset 'text_file' needs dataset.file: set dataset.file=FILE (.txt, .jsonl, .csv, .tsv).")
        ending = Path(self.file).suffix.lower()
        if ending not in ENDINGS:
            raise UserError(f"Expected dataset.file to end in {', '.join(ENDINGS)}, but got '{Path(self.file).name}'.")
        if ending == ".txt" and self.label_column is not None:
            raise UserError(
                f"dataset.label_column={self.label_column} names a column, but a .txt file has none; give a .csv, .tsv "
                "or .jsonl file."
            )

    def corpus(self) -> Corpus:
        """Return the texts of the file.

        Raises:
            UserError: If the file or a column cannot be used; the message names it.
        """
        assert self.file is not None
        path, where = Path(self.file).expanduser(), f"dataset.file={self.file}"
        if not path.is_file():
            raise UserError(f"{where} is not a file; give a file of texts (.txt, .jsonl, .csv, .tsv).")
        if path.suffix.lower() == ".txt":
            lines = lines_of(path, where)
            return Corpus.of(lines, [0] * len(lines), ("text",), where)
        columns = self._columns(path, where)
        texts = self._column(columns, "column", self.column, where)
        if self.label_column is None:
            return Corpus.of(texts, [0] * len(texts), ("text",), where)
        said = self._column(columns, "label_column", self.label_column, where)
        if lacking := sum(one is None or one == "" for one in said):
            raise UserError(f"{lacking} texts of {where} have no '{self.label_column}'; give them one.")
        names = sorted({str(one) for one in said})
        numbers = {name: number for number, name in enumerate(names)}
        return Corpus.of(texts, [numbers[str(one)] for one in said], tuple(names), where)

    def _columns(self, path: Path, where: str) -> dict[str, list[Any]]:
        if path.suffix.lower() == ".jsonl":
            records = records_of(path, where)
            keys = dict.fromkeys(key for record in records for key in record)
            return {key: [record.get(key) for record in records] for key in keys}
        separator = "\t" if path.suffix.lower() == ".tsv" else ","
        table = table_of(path, where, sep=separator, dtype=str, keep_default_na=False)
        return {str(name): table[name].tolist() for name in table}

    def _column(self, columns: dict[str, list[Any]], option: str, name: str, where: str) -> list[Any]:
        if name not in columns:
            hint = nearest(name, columns, f"it has {', '.join(columns) or 'none'}.")
            raise UserError(f"{where} has no column '{name}' (dataset.{option}); {hint}")
        return columns[name]
