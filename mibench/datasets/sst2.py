"""SST-2: sentences and phrases of film reviews, negative or positive.

R. Socher et al., Recursive Deep Models for Semantic Compositionality over a Sentiment Treebank, EMNLP 2013, in the form
of GLUE (Wang et al., ICLR 2019). Layout: ``SST-2/train.tsv`` and ``SST-2/dev.tsv`` with the columns
``sentence`` and ``label``. The 67,349 phrases of the training part are taken, since the official test part has no
labels. Phrases overlap (one is often a part of another), so private words stand in public phrases; the very same ids
never do.
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.families.text_files import Corpus, labels_of, table_of
from mibench.datasets.families.texts import Texts
from mibench.errors import UserError
from mibench.storage.fetching import Download

CLASSES = ("negative", "positive")


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

    def corpus(self) -> Corpus:
        """Return the phrases of the training part.

        Raises:
            DatasetNotFoundError: If the file is not there.
            UserError: If it is not GLUE's.
        """
        file = self.first_file("SST-2/train.tsv")
        table = table_of(file, str(file), sep="\t", quoting=3)
        if not {"sentence", "label"} <= set(table):
            raise UserError(f"{file} has no columns 'sentence' and 'label' between tabs; it is not GLUE's SST-2.")
        labels = labels_of(table["label"].tolist(), CLASSES, str(file))
        return Corpus.of(table["sentence"].tolist(), labels, CLASSES, str(file))
