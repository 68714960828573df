"""Anyone's table: a file of records, one of whose columns a model predicts and another is sensitive.

``dataset.file`` (CSV with a header, or parquet) holds the records that the model knows. It is tested on
``dataset.test_file``, or on a share of ``file``. The attacker's records are ``dataset.public_file``, or another share
of ``file``, which then is not private; without any the control is the most frequent value. Records are coded as
:func:`mibench.datasets.base.coded_table` says, by the categories of ``file``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from mibench.card import DatasetCard
from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.datasets.base import Dataset, coded_table
from mibench.errors import UserError
from mibench.limits import TEXT, parquet_rows, plain_file
from mibench.options import Decay, Share
from mibench.seeding import derive, generator

if TYPE_CHECKING:
    import pandas as pd


class Table(Dataset):
    """A table of one's own."""

    card = DatasetCard(
        name="table",
        title="A table of records",
        modalities=("tabular",),
        licence="the owner's",
        may_show=False,
        tasks=("attribute",),
    )

    file: Path | str | None = None
    """The private records."""
    response: str | None = None
    """The column that the model predicts."""
    sensitive: str | None = None
    """The categorical column that attribute inference is about."""
    categorical: Sequence[str] = ()
    """Columns of numbers that are codes of categories."""
    separator: str = ","
    """What parts the columns of a CSV file."""
    test_file: Path | str | None = None
    """Records that the model is tested on; null takes a share of ``file``."""
    test_fraction: Share = 0.25
    """That share."""
    public_file: Path | str | None = None
    """The attacker's records; null takes a share of ``file``."""
    public_fraction: Decay = 0.0
    """That share; 0 leaves the attacker none."""

    def __post_init__(self) -> None:
        """Refuse a missing file or column, and two sources of public records."""
        super().__post_init__()
        for key in ("file", "response", "sensitive"):
            if not getattr(self, key):
                raise UserError(
                    f"Dataset 'table' needs dataset.{key}: set dataset.file=FILE dataset.response=COLUMN "
                    "dataset.sensitive=COLUMN."
                )
        if self.public_fraction and self.public_file is not None:
            raise UserError(
                f"Expected dataset.public_fraction to be 0 beside dataset.public_file, but got {self.public_fraction}."
            )

    def load(self) -> Split:
        """Return the split; the control needs no records of its own.

        Raises:
            UserError: If a file, a column or a value cannot be used; the message names it.
        """
        assert self.response is not None and self.sensitive is not None
        files = {"file": self.file, "test_file": self.test_file, "public_file": self.public_file}
        tables = {key: self._read(key, file) for key, file in files.items() if file is not None}
        coded = coded_table(tables, self.response, self.categorical)
        if self.sensitive not in (names := [column.name for column in coded.columns]):
            raise UserError(
                f"dataset.sensitive={self.sensitive} is no column that the model sees; choose one of "
                f"{', '.join(names)}."
            )
        self._refuse_sensitive(coded.columns)
        rest = coded.examples["file"]
        rest = rest[torch.randperm(len(rest), generator=generator(derive(self.seed, "parts")))]
        public, test = coded.examples.get("public_file"), coded.examples.get("test_file")
        if self.public_fraction:
            public, rest = parted(rest, self.public_fraction)
        if test is None:
            test, rest = parted(rest, self.test_fraction)
        if not len(test) or not len(rest) or len(rest.y.unique()) < len(coded.classes):
            raise UserError(
                f"dataset.file={self.file} holds too few records to part: after setting aside those of the "
                "test and of the attacker not every class is left to train on."
            )
        return Split(
            spec=InputSpec("tabular", (len(coded.columns),), len(coded.classes), coded.columns),
            private=Population(rest, test),
            public=public,
            class_names=coded.classes,
            sensitive=self.sensitive,
        )

    def _refuse_sensitive(self, columns: Sequence[Column]) -> None:
        """Raise where the sensitive column is one of numbers, or has a single value."""
        (column,) = [column for column in columns if column.name == self.sensitive]
        if len(column.values) > 1:
            return
        others = ", ".join(one.name for one in columns if len(one.values) > 1)
        what = f"has one value ('{column.values[0]}')" if column.values else "is a column of numbers"
        remedy = f"choose one of {others}" if others else "the table has no other column of categories"
        if not column.values:
            remedy += f", or set dataset.categorical=[{self.sensitive}] if its numbers are codes of categories"
        raise UserError(
            f"dataset.sensitive={self.sensitive} {what}, and attribute inference is about one of several categories; "
            f"{remedy}."
        )

    def _read(self, key: str, file: Path | str) -> pd.DataFrame:
        import pandas as pd

        path = Path(file).expanduser()
        if not path.is_file():
            raise UserError(f"dataset.{key}={file} is not a file; give a CSV file with a header, or a parquet file.")
        try:
            if path.suffix == ".parquet":
                frame: pd.DataFrame = parquet_rows(path).to_pandas()
                return frame
            return pd.read_csv(plain_file(path, f"dataset.{key}={file}", TEXT), sep=self.separator)
        except (OSError, ValueError, UserError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(f"dataset.{key}={file} cannot be read as a table ({reason}).") from error


def parted(records: Examples, fraction: float) -> tuple[Examples, Examples]:
    """Return the first ``fraction`` of the records, and the rest."""
    count = round(fraction * len(records))
    rows = torch.arange(len(records))
    return records[rows[:count]], records[rows[count:]]
