"""AG News: titles and first sentences of news of four kinds.

X. Zhang, J. Zhao and Y. LeCun, Character-level Convolutional Networks for Text Classification, NeurIPS 2015, from the
corpus of A. Gulli. Layout: ``ag_news_csv/train.csv`` (120,000 items) and ``ag_news_csv/test.csv`` (7,600), each with
three columns without a header: class from 1 to 4, title, description. A text is the title and then the description.
Where ``train.csv`` is not there the items of ``test.csv`` are parted instead, and a note says so.
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.families.text_files import Corpus, labels_of, table_of
from mibench.datasets.families.texts import Texts
from mibench.errors import UserError
from mibench.options import Several
from mibench.storage.fetching import Download

CLASSES = ("World", "Sports", "Business", "Sci/Tech")


class AgNews(Texts):
    """AG News."""

    card = DatasetCard(
        name="ag_news",
        title="AG News",
        modalities=("text",),
        year=2015,
        licence="non-commercial research",
        may_show=False,
        tasks=("sequence",),
    )
    downloads = (
        Download(
            path="ag_news_csv/train.csv",
            url="https://s3.amazonaws.com/fast-ai-nlp/ag_news_csv.tgz",
            unpack="tar",
            instead=("ag_news_csv/test.csv",),
        ),
    )

    length: Several = 80
    """Tokens of a text, ``[CLS]`` and ``[SEP]`` among them; longer texts are left out."""
    vocabulary: Several = 8000
    """Pieces of the vocabulary that is made of the public texts."""

    def corpus(self) -> Corpus:
        """Return the items of ``train.csv``, or those of ``test.csv`` if ``train.csv`` is missing.

        Raises:
            DatasetNotFoundError: If neither file is there.
            UserError: If it is not that of the paper.
        """
        file = self.first_file("ag_news_csv/train.csv", "ag_news_csv/test.csv")
        table = table_of(file, str(file), header=None, names=None, keep_default_na=False)
        if len(table.columns) != 3:
            raise UserError(
                f"{file} has {len(table.columns)} columns instead of 3 (class, title, description); it is not AG News."
            )
        table.columns = ["class", "title", "description"]
        labels = labels_of(table["class"].tolist(), CLASSES, str(file), first=1)
        instead = (
            (f"AG News: train.csv is not there, so the {len(table):,} items of test.csv are parted.",)
            if file.stem == "test"
            else ()
        )
        texts = (table["title"].astype(str) + " " + table["description"].astype(str)).tolist()
        return Corpus.of(texts, labels, CLASSES, str(file), reading=instead)
