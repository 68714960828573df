"""Adult: 45,222 people of the United States' census of 1994, and whether they earn more than 50,000 dollars a year.

B. Becker and R. Kohavi, Adult, UCI Machine Learning Repository 1996; https://archive.ics.uci.edu/dataset/2/adult, CC BY
4.0. Eight categorical and six numeric columns in the order of the file; the response is income (<=50K, >50K). Both
files are read as one table. Records with an unknown value (``?``) are left out, and of records that agree in all
columns but the response the first is kept, so that none is in two parts. Sensitive, unless said otherwise:
``marital-status``. Records are parted at random. The bounds of numeric columns are those of the published table (ages
are cut at 90, gains at 99,999). Layout: ``adult/adult.data`` and ``adult/adult.test``.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from mibench.card import DatasetCard
from mibench.data import Column
from mibench.datasets.base import CodedTable, coded_table
from mibench.datasets.families.tables import PartedTable
from mibench.errors import UserError
from mibench.storage.fetching import Download

if TYPE_CHECKING:
    import pandas as pd

#: The columns of both files, which have no header.
COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship", "race",
    "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income",
)  # fmt: skip

#: The least and the largest value of every numeric column in the published table.
BOUNDS = {
    "age": (17, 90),
    "fnlwgt": (12285, 1490400),
    "education-num": (1, 16),
    "capital-gain": (0, 99999),
    "capital-loss": (0, 4356),
    "hours-per-week": (1, 99),
}


class Adult(PartedTable):
    """The whole table without incomplete records."""

    card = DatasetCard(
        name="adult",
        title="Adult (UCI census income)",
        modalities=("tabular",),
        year=1996,
        licence="CC BY 4.0",
        may_show=True,
        tasks=("attribute", "instance"),
    )
    downloads = (
        Download(
            path="adult/adult.data",
            url="https://archive.ics.uci.edu/static/public/2/adult.zip",
            members=("adult.data",),
            sha256="5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
        ),
        Download(
            path="adult/adult.test",
            url="https://archive.ics.uci.edu/static/public/2/adult.zip",
            members=("adult.test",),
            sha256="a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
        ),
    )

    sensitive: str = "marital-status"

    def table(self) -> CodedTable:
        """Return the complete records of both files, with the published bounds of their numbers."""
        coded = coded_table({"data_root": self._records()}, "income")
        return dataclasses.replace(coded, columns=tuple(map(_bounded, coded.columns)))

    def _records(self) -> pd.DataFrame:
        """Return the complete records of both files, none of them twice."""
        import pandas as pd

        tables = []
        for name, comments in (("adult.data", 0), ("adult.test", 1)):  # the first line of the test file is a remark
            file = self.first_file(f"adult/{name}")
            table = pd.read_csv(
                file, names=list(COLUMNS), index_col=False, skipinitialspace=True, na_values="?", skiprows=comments
            )
            if table.empty or not pd.api.types.is_numeric_dtype(table["age"]):
                raise UserError(f"The first column of {file} holds no ages; it is not UCI's {name}.")
            tables.append(table)
        both = pd.concat(tables, ignore_index=True).dropna()
        both["income"] = both["income"].str.rstrip(".")  # which end so in the test file alone
        return both.drop_duplicates(list(COLUMNS[:-1]))


def _bounded(column: Column) -> Column:
    """Return a column with its published bounds."""
    low, high = BOUNDS.get(column.name, (None, None))
    return dataclasses.replace(column, low=low, high=high)
