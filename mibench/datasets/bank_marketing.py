"""Bank marketing: 45,211 phone calls of a Portuguese bank, and whether the client then took a term deposit.

S. Moro, R. Laureano and P. Cortez, Using data mining for bank direct marketing: an application of the CRISP-DM
methodology, ESM 2011; https://archive.ics.uci.edu/dataset/222/bank+marketing, CC BY 4.0. Nine categorical and seven
numeric columns; the response is ``y`` (no, yes). Sensitive, unless said otherwise: ``marital``. Records are parted at
random, and none is in two parts. Layout: ``bank-full.csv`` or ``bank/bank-full.csv``.
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.base import CodedTable, coded_table
from mibench.datasets.families.tables import PartedTable
from mibench.errors import UserError
from mibench.storage.fetching import Download


class BankMarketing(PartedTable):
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

    def table(self) -> CodedTable:
        """Return all records, categories coded in sorted order."""
        import pandas as pd

        file = self.first_file("bank-full.csv", "bank/bank-full.csv")
        table = pd.read_csv(file, sep=";")
        if "y" not in table:
            raise UserError(f"{file} has no column 'y' between semicolons; it is not UCI's bank-full.csv.")
        return coded_table({"data_root": table}, "y")
