"""Bank marketing: 45,211 phone calls of a Portuguese bank, and whether the client then took a term deposit.

S. Moro, R. Laureano and P. Cortez, Using data mining for bank direct marketing: an application of the CRISP-DM
methodology, ESM 2011; https://archive.ics.uci.edu/dataset/222/bank+marketing, CC BY 4.0. Nine categorical and seven
numeric columns; the response is ``y`` (no, yes). Sensitive, unless said otherwise: ``marital``. Records are parted at
random, and none is in two parts. Layout: ``bank-full.csv`` or ``bank/bank-full.csv``.
"""

from __future__ import annotations

from pathlib import Path

import torch

from mibench.card import DatasetCard
from mibench.data import Column, Examples, InputSpec, Population, Split
from mibench.datasets.base import Dataset, coded_table
from mibench.errors import DatasetNotFoundError, UserError
from mibench.seeding import derive, generator
from mibench.storage.fetching import Download


class BankMarketing(Dataset):
    """The full table.

    Args:
        data_root: Folder with ``bank-full.csv`` or ``bank/bank-full.csv``.
        seed: Seed of the parting.
        sensitive: The categorical column that attribute inference is about.
        private_train: Records the target is trained on.
        private_test: Records it is tested on.
        public: The attacker's records.
        held_out_train: Records a control victim is trained on.
        held_out_test: Records it is tested on.
    """

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

    def __init__(
        self,
        *,
        data_root: Path | str,
        seed: int = 0,
        sensitive: str = "marital",
        private_train: int = 10000,
        private_test: int = 4000,
        public: int = 10000,
        held_out_train: int = 10000,
        held_out_test: int = 4000,
    ) -> None:
        super().__init__(data_root=data_root, seed=seed)
        self.sensitive = sensitive
        self.sizes = {
            "private_train": private_train,
            "private_test": private_test,
            "public": public,
            "held_out_train": held_out_train,
            "held_out_test": held_out_test,
        }
        if empty := [name for name, size in self.sizes.items() if size < 1]:
            raise UserError(f"Expected dataset.{empty[0]} to be at least 1, but got {self.sizes[empty[0]]}.")

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

        table = pd.read_csv(self._file(), sep=";")
        if "y" not in table:
            raise UserError(f"{self._file()} has no column 'y' between semicolons; it is not UCI's bank-full.csv.")
        coded = coded_table({"data_root": table}, "y")
        return coded.columns, coded.classes, coded.examples["data_root"]

    def _file(self) -> Path:
        looked = [Path(self.data_root) / "bank-full.csv", Path(self.data_root) / "bank" / "bank-full.csv"]
        for file in looked:
            if file.is_file():
                return file
        raise DatasetNotFoundError(
            "bank_marketing",
            looked,
            "get it with python -m mibench fetch bank_marketing (from "
            "https://archive.ics.uci.edu/dataset/222/bank+marketing)",
        )
