"""Rotten Tomatoes: sentences of film reviews, negative or positive.

B. Pang and L. Lee, Seeing Stars: Exploiting Class Relationships for Sentiment Categorization with Respect to Rating
Scales, ACL 2005; data set v1.0. Layout: ``rt-polaritydata/rt-polarity.neg`` and ``rt-polaritydata/rt-polarity.pos``
with 5,331 sentences each, one a line. The authors' files are in latin-1; copies in UTF-8 are read too.
"""

from __future__ import annotations

from mibench.card import DatasetCard
from mibench.datasets.families.text_files import Corpus, lines_of
from mibench.datasets.families.texts import Texts
from mibench.options import Several
from mibench.storage.fetching import Download

#: The classes in the order of their ids, with the ending of the file of each.
CLASSES = {"negative": "neg", "positive": "pos"}


class RottenTomatoes(Texts):
    """Sentence polarity v1.0."""

    card = DatasetCard(
        name="rotten_tomatoes",
        title="Rotten Tomatoes sentence polarity v1.0",
        modalities=("text",),
        year=2005,
        licence="none stated; for research",
        may_show=False,
        tasks=("sequence",),
    )
    downloads = (
        Download(
            path="rt-polaritydata/rt-polarity.pos",
            url="https://www.cs.cornell.edu/people/pabo/movie-review-data/rt-polaritydata.tar.gz",
            unpack="tar",
        ),
    )

    length: Several = 48
    """Tokens of a text, ``[CLS]`` and ``[SEP]`` among them; longer texts are left out."""
    vocabulary: Several = 8000
    """Pieces of the vocabulary that is made of the public texts."""

    def corpus(self) -> Corpus:
        """Return the sentences of both classes.

        Raises:
            DatasetNotFoundError: If a file is not there.
        """
        texts: list[str] = []
        labels: list[int] = []
        for label, ending in enumerate(CLASSES.values()):
            file = self.first_file(f"rt-polaritydata/rt-polarity.{ending}")
            lines = lines_of(file, str(file), ("utf-8-sig", "latin-1"))
            texts += lines
            labels += [label] * len(lines)
        return Corpus.of(texts, labels, tuple(CLASSES), "rt-polaritydata")
