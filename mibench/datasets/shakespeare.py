"""Tiny Shakespeare: who of several persons speaks a line; the texts that travel with mibench.

The plays of W. Shakespeare, in the excerpt of 1,115,394 characters on which A. Karpathy's char-rnn was shown (The
Unreasonable Effectiveness of Recurrent Neural Networks, 2015); public domain. A speech is a name, a colon and lines of
verse or prose; a text is one line.

Private: lines of the persons with the most lines, who are the classes. Control: lines of as many persons who follow
them. Public: lines of all others, numbered by their persons, so that no private person speaks a public line.
"""

from __future__ import annotations

import bz2
import re
from collections import Counter
from pathlib import Path

from mibench.card import DatasetCard
from mibench.datasets.families.text_files import Corpus
from mibench.datasets.families.texts import Texts
from mibench.options import CountOrNone, Several

FILE = Path(__file__).parent / "shakespeare.txt.bz2"


class Shakespeare(Texts):
    """The embedded lines; ``data_root`` is not used."""

    card = DatasetCard(
        name="shakespeare",
        title="Tiny Shakespeare",
        modalities=("text",),
        year=2015,
        licence="public domain",
        may_show=True,
        embedded=True,
        tasks=("sequence",),
    )

    persons: Several = 8
    """Persons whose lines are private; as many others are the control's."""
    length: Several = 20
    """Tokens of a line, ``[CLS]`` and ``[SEP]`` among them; longer lines are left out."""
    held_out: CountOrNone = 2400
    """Lines of the control victim, parted as the private ones are; 0 leaves no control."""

    def corpus(self) -> Corpus:
        """Return the lines with who speaks them; never fails for missing files."""
        said = spoken(bz2.decompress(FILE.read_bytes()).decode())
        counted = Counter(person for person, _ in said)
        ranks = {person: rank for rank, (person, _) in enumerate(counted.most_common())}
        roles = ("private", "held_out", "public")
        return Corpus.of(
            [line for _, line in said],
            [_number(ranks[person], self.persons) for person, _ in said],
            tuple(person for person, _ in counted.most_common(self.persons)),
            "Tiny Shakespeare",
            [roles[min(2, ranks[person] // self.persons)] for person, _ in said],
        )


def spoken(text: str) -> list[tuple[str, str]]:
    r"""Return every line of a play with who speaks it.

    >>> spoken("All:\nSpeak, speak.\n\nFirst Citizen:\nYou are all resolved\nrather to die?\n")
    [('All', 'Speak, speak.'), ('First Citizen', 'You are all resolved'), ('First Citizen', 'rather to die?')]
    """
    found = []
    for speech in re.split(r"\n\n+", text.strip()):
        person, _, lines = speech.partition(":\n")
        found += [(person, line) for line in lines.split("\n") if line.strip()]
    return found


def _number(rank: int, persons: int) -> int:
    """Return the class id of the person of a rank: among the private, among the control's, or among all others."""
    return rank % persons if rank < 2 * persons else rank - 2 * persons
