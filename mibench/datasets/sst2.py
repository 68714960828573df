"""SST-2: sentences and phrases of film reviews, negative or positive.

R. Socher et al., Recursive Deep Models for Semantic Compositionality over a Sentiment Treebank, EMNLP 2013, in the form
of GLUE (Wang et al., ICLR 2019). Layout: ``SST-2/train.tsv`` and ``SST-2/dev.tsv`` with the columns
``sentence`` and ``label``. The 67,349 phrases of the training part are taken, since the official test part has no
labels. Phrases overlap (one is often a part of another), so private words stand in public phrases; the very same ids
never do.
"""

from __future__ import annotations

from collections.abc import Sequence

from mibench.card import DatasetCard
from mibench.datasets.families.texts import Texts
from mibench.errors import UserError
from mibench.storage.fetching import Download


class Sst2(Texts):
    """SST-2."""

    card = DatasetCard(
        name="sst2",
        title="Stanford Sentiment Treebank (SST-2)",
        modalities=("text",),
        year=2013,
        licence="none stated; for research",
        may_show=False,
        tasks=("sequence",),
    )
    downloads = (
        Download(
            path="SST-2/train.tsv",
            url="https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
            unpack="zip",
        ),
    )

    def texts(self) -> tuple[Sequence[str], Sequence[int], tuple[str, ...]]:
        """Return the phrases of the training part.

        Raises:
            DatasetNotFoundError: If the file is not there.
            UserError: If it is not GLUE's.
        """
        import pandas as pd

        file = self.first_file("SST-2/train.tsv")
        table = pd.read_csv(file, sep="\t", quoting=3)
        if not {"sentence", "label"} <= set(table):
            raise UserError(f"{file} has no columns 'sentence' and 'label' between tabs; it is not GLUE's SST-2.")
        return table["sentence"].str.strip().tolist(), table["label"].astype(int).tolist(), ("negative", "positive")
