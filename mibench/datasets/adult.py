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

import torch

from mibench.card import DatasetCard
from mibench.data import Column, InputSpec, Population, Split
from mibench.datasets.base import Dataset, coded_table
from mibench.errors import UserError
from mibench.options import Count
from mibench.seeding import derive, generator
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

#: The parts of the shuffled table, in its order.
PARTS = ("private_train", "private_test", "public", "held_out_train", "held_out_test")


class Adult(Dataset):
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
    """The categorical column that attribute inference is about."""
    private_train: Count = 10000
    """Records the target is trained on."""
    private_test: Count = 4000
    """Records it is tested on."""
    public: Count = 10000
    """The attacker's records."""
    held_out_train: Count = 10000
    """Records a control victim is trained on."""
    held_out_test: Count = 4000
    """Records it is tested on."""

    @property
    def sizes(self) -> dict[str, int]:
        """The number of records of every part."""
        return {part: getattr(self, part) for part in PARTS}

    def load(self) -> Split:
        """Return the split; the order of the parts in the shuffled table is that of the options.

        Raises:
            DatasetNotFoundError: If a file is not there.
            UserError: If more records are asked for than there are.
        """
        coded = coded_table({"data_root": self._table()}, "income")
        examples, wanted = coded.examples["data_root"], sum(self.sizes.values())
        if wanted > len(examples):
            raise UserError(
                f"The sizes dataset.{', dataset.'.join(self.sizes)} add up to {wanted} records, but the table has "
                f"{len(examples)}; lower one of them."
            )
        order = torch.randperm(len(examples), generator=generator(derive(self.seed, "parts")))
        parts = [examples[rows] for rows in order[:wanted].split(list(self.sizes.values()))]
        columns = tuple(map(_bounded, coded.columns))
        return Split(
            spec=InputSpec("tabular", (len(columns),), len(coded.classes), columns),
            private=Population(parts[0], parts[1]),
            public=parts[2],
            held_out=Population(parts[3], parts[4]),
            class_names=coded.classes,
            sensitive=self.sensitive,
        )

    def _table(self) -> pd.DataFrame:
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
