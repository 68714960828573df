"""The family of published tables: records at random to a target, the attacker and a control victim."""

from __future__ import annotations

from abc import abstractmethod

import torch

from mibench.data import InputSpec, Population, Split
from mibench.datasets.base import CodedTable, Dataset
from mibench.errors import UserError
from mibench.options import Count
from mibench.seeding import derive, generator

#: The parts of the shuffled table, in its order.
PARTS = ("private_train", "private_test", "public", "held_out_train", "held_out_test")


class PartedTable(Dataset):
    """A table that is parted at random."""

    sensitive: str = ""
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

    @abstractmethod
    def table(self) -> CodedTable:
        """Return all records, below the key ``data_root``.

        Raises:
            DatasetNotFoundError: If a file is not there.
            UserError: If it is another file.
        """

    def load(self) -> Split:
        """Return the split; the order of the parts in the shuffled table is that of the options.

        Raises:
            DatasetNotFoundError: If a file is not there.
            UserError: If more records are asked for than there are.
        """
        coded = self.table()
        examples, wanted = coded.examples["data_root"], sum(self.sizes.values())
        if wanted > len(examples):
            raise UserError(
                f"The sizes dataset.{', dataset.'.join(self.sizes)} add up to {wanted} records, but the table has "
                f"{len(examples)}; lower one of them."
            )
        order = torch.randperm(len(examples), generator=generator(derive(self.seed, "parts")))
        parts = [examples[rows] for rows in order[:wanted].split(list(self.sizes.values()))]
        return Split(
            spec=InputSpec("tabular", (len(coded.columns),), len(coded.classes), coded.columns),
            private=Population(parts[0], parts[1]),
            public=parts[2],
            held_out=Population(parts[3], parts[4]),
            class_names=coded.classes,
            sensitive=self.sensitive,
        )
