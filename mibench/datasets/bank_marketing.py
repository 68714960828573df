"""Bank marketing: 45,211 phone calls of a Portuguese bank, and whether the client then took a term deposit.

S. Moro, R. Laureano and P. Cortez, Using data mining for bank direct marketing: an application of the CRISP-DM
methodology, ESM 2011; https://archive.ics.uci.edu/dataset/222/bank+marketing, CC BY 4.0. Nine categorical and seven
numeric columns; the response is ``y`` (no, yes). Sensitive, unless said otherwise: ``marital``. Records are parted at
random, and none is in two parts. Layout: ``bank-full.csv`` or ``bank/bank-full.csv``.
"""

from __future__ import annotations

import torch

from mibench.card import DatasetCard
from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.datasets.base import Dataset, coded_table
from mibench.errors import UserError
from mibench.options import Count
from mibench.seeding import derive, generator
from mibench.storage.fetching import Download

#: The parts of the shuffled table, in its order.
PARTS = ("private_train", "private_test", "public", "held_out_train", "held_out_test")


class BankMarketing(Dataset):
    """The full table."""

    card = DatasetCard(
        name="bank_marketing",
        title="Bank marketing (UCI)",
        modalities=("tabular",),
        year=2011,
        licence="CC BY 4.0",
        may_show=True,
        tasks=("attribute",),
    )
    downloads = (
        Download(
            path="bank-full.csv",
            url="https://archive.ics.uci.edu/static/public/222/bank+marketing.zip",
            members=("bank.zip", "bank-full.csv"),
            sha256="d1513ec63b385506f7cfce9f2c5caa9fe99e7ba4e8c3fa264b3aaf0f849ed32d",
            instead=("bank/bank-full.csv",),
        ),
    )

    sensitive: str = "marital"
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
            DatasetNotFoundError: If the table is not there.
            UserError: If more records are asked for than there are.
        """
        columns, classes, examples = self._table()
        wanted = sum(self.sizes.values())
        if wanted > len(examples):
            raise UserError(
                f"The sizes dataset.{', dataset.'.join(self.sizes)} add up to {wanted} records, but the table has "
                f"{len(examples)}; lower one of them."
            )
        order = torch.randperm(len(examples), generator=generator(derive(self.seed, "parts")))
        parts = [examples[rows] for rows in order[:wanted].split(list(self.sizes.values()))]
        return Split(
            spec=InputSpec("tabular", (len(columns),), len(classes), columns),
            private=Population(parts[0], parts[1]),
            public=parts[2],
            held_out=Population(parts[3], parts[4]),
            class_names=classes,
            sensitive=self.sensitive,
        )

    def _table(self) -> tuple[tuple[Column, ...], tuple[str, ...], Examples]:
        """Return the schema, the names of the response and all records, categories coded in sorted order."""
        import pandas as pd

        file = self.first_file("bank-full.csv", "bank/bank-full.csv")
        table = pd.read_csv(file, sep=";")
        if "y" not in table:
            raise UserError(f"{file} has no column 'y' between semicolons; it is not UCI's bank-full.csv.")
        coded = coded_table({"data_root": table}, "y")
        return coded.columns, coded.classes, coded.examples["data_root"]
