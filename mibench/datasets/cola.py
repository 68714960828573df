"""CoLA: sentences of linguistics publications, acceptable in the eyes of their authors or not.

A. Warstadt, A. Singh and S. R. Bowman, Neural Network Acceptability Judgments, TACL 2019. Layout of the public part:
``cola_public/raw/in_domain_train.tsv``, four columns between tabs without a header: source, label, the author's own
mark, sentence. The 8,551 sentences of the training part are taken, since the official test part has no labels.
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.families.text_files import Corpus, labels_of, table_of
from mibench.datasets.families.texts import Texts
from mibench.errors import UserError
from mibench.storage.fetching import Download

CLASSES = ("unacceptable", "acceptable")
COLUMNS = ("source", "label", "mark", "sentence")


class Cola(Texts):
    """CoLA."""

    card = DatasetCard(
        name="cola",
        title="Corpus of Linguistic Acceptability (CoLA)",
        modalities=("text",),
        year=2019,
        licence="none stated; for research",
        may_show=False,
        tasks=("sequence",),
    )
    downloads = (
        Download(
            path="cola_public/raw/in_domain_train.tsv",
            url="https://nyu-mll.github.io/CoLA/cola_public_1.1.zip",
            unpack="zip",
        ),
    )

    def corpus(self) -> Corpus:
        """Return the sentences of the training part.

        Raises:
            DatasetNotFoundError: If the file is not there.
            UserError: If it is not CoLA's.
        """
        file = self.first_file("cola_public/raw/in_domain_train.tsv")
        table = table_of(file, str(file), sep="\t", quoting=3, header=None)
        if len(table.columns) != len(COLUMNS):
            raise UserError(
                f"{file} has {len(table.columns)} columns between tabs instead of {len(COLUMNS)} "
                f"({', '.join(COLUMNS)}); it is not CoLA's."
            )
        table.columns = list(COLUMNS)
        labels = labels_of(table["label"].tolist(), CLASSES, str(file))
        return Corpus.of(table["sentence"].tolist(), labels, CLASSES, str(file))
