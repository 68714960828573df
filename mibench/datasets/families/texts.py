"""The family of labelled texts: WordPiece ids of a fixed length, with a vocabulary made of public texts or a file's.

The package ``tokenizers`` cuts texts as BERT does (lower case, accents and punctuation apart, the longest piece first).
A vocabulary that is made here holds the special tokens, every character, alone and as a continuation, and the most
frequent words of the *public* texts, so that no private word is published by it; ties go by the alphabet. Texts are
``[CLS] words [SEP]``, then ``[PAD]``; those with more tokens than there is room for are left out, as are those whose
ids another text has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mibench.data import Examples, InputSpec, Population, Split
from mibench.datasets.base import Dataset
from mibench.errors import UserError
from mibench.options import Count, Several
from mibench.seeding import derive, generator

#: The special tokens, at the ids 0 to 3 of a vocabulary that is made here.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


class WordPiece:
    """BERT's way of cutting texts, by the package ``tokenizers``.

    Args:
        pieces: The vocabulary in the order of its ids.

    Attributes:
        special: The ids of :data:`SPECIAL`.
        size: Number of pieces.
    """

    def __init__(self, pieces: Sequence[str]) -> None:
        from tokenizers import Tokenizer as Cutter
        from tokenizers import decoders, models, normalizers, pre_tokenizers

        ids = {piece: position for position, piece in enumerate(pieces)}
        self.special = tuple(ids[one] for one in SPECIAL)
        self.size = len(pieces)
        self._cutter: Any = Cutter(models.WordPiece(vocab=ids, unk_token=SPECIAL[1]))
        self._cutter.normalizer = normalizers.BertNormalizer(lowercase=True)
        self._cutter.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        self._cutter.decoder = decoders.WordPiece(cleanup=False)

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of a text, between those of ``[CLS]`` and ``[SEP]``."""
        ids: list[int] = self._cutter.encode(text, add_special_tokens=False).ids
        return [self.special[2], *ids, self.special[3]]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without special tokens but ``[UNK]``."""
        left = {self.special[0], self.special[2], self.special[3]}
        text: str = self._cutter.decode([one for one in ids if one not in left], skip_special_tokens=False)
        return text

    @staticmethod
    def words(text: str) -> list[str]:
        """Return the words of a text before they are cut into pieces."""
        from tokenizers import normalizers, pre_tokenizers

        normal = normalizers.BertNormalizer(lowercase=True).normalize_str(text)
        return [word for word, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normal)]


def made_vocabulary(texts: Sequence[str], size: int) -> list[str]:
    """Return the pieces of a vocabulary made of texts, at most ``size`` of them unless the characters are more.

    >>> made_vocabulary(["ab ab b", "c"], 11)
    ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '##a', '##b', '##c', 'a', 'b', 'c', 'ab']
    """
    counted = Counter(word for text in texts for word in WordPiece.words(text))
    letters = sorted({letter for word in counted for letter in word})
    begun = [*SPECIAL, *(f"##{letter}" for letter in letters), *letters]
    frequent = sorted((word for word in counted if len(word) > 1), key=lambda word: (-counted[word], word))
    return [*begun, *frequent[: max(0, size - len(begun))]]


class Texts(Dataset):
    """Labelled texts."""

    length: Several = 24
    """Tokens of a text, ``[CLS]`` and ``[SEP]`` among them; longer texts are left out."""
    min_words: Count = 4
    """Fewest words of a text."""
    vocabulary: Several = 4000
    """Pieces of the vocabulary that is made of the public texts."""
    vocabulary_file: Path | None = None
    """A vocabulary of one's own, a piece a line (BERT's ``vocab.txt``); null makes one."""
    private_train: Count = 2000
    """Texts the target is trained on."""
    private_test: Count = 400
    """Texts it is tested on."""
    public: Count = 4000
    """The attacker's texts."""

    @abstractmethod
    def texts(self) -> tuple[Sequence[str], Sequence[int], tuple[str, ...]]:
        """Return all texts in the file's order, their class ids, and the names of the classes.

        Raises:
            DatasetNotFoundError: If the files are not there.
        """

    def load(self) -> Split:
        """Return the split: public texts come first in the shuffled order, since the vocabulary is made of them.

        Raises:
            DatasetNotFoundError: If the files are not there.
            UserError: If ``tokenizers`` is not installed, or there are fewer texts than are asked for.
        """
        texts, labels, classes = self.texts()
        try:
            import tokenizers  # noqa: F401
        except ImportError:
            raise UserError(
                f"dataset={self.card.name} cuts texts with the package tokenizers; install it with pip install "
                "'mibench[text]'."
            ) from None
        order = torch.randperm(len(texts), generator=generator(derive(self.seed, "parts"))).tolist()
        rows = [row for row in order if len(texts[row].split()) >= self.min_words]
        tokenizer = WordPiece(self._pieces([texts[row] for row in rows[: self.public]]))
        wanted = self.public + self.private_train + self.private_test
        encoded = self._encoded(rows, texts, tokenizer, wanted)
        if len(encoded) < wanted:
            raise UserError(
                f"The sizes dataset.public, dataset.private_train and dataset.private_test add up to {wanted} texts, "
                f"but {len(encoded)} are long enough and fit dataset.length={self.length}; lower one of them."
            )
        x = torch.tensor(list(encoded), dtype=torch.long)
        y = torch.tensor([labels[row] for row in encoded.values()], dtype=torch.long)
        sizes = [self.public, self.private_train, self.private_test]
        public, train, test = (Examples(*pair) for pair in zip(x.split(sizes), y.split(sizes), strict=True))
        spec = InputSpec(
            "text",
            (self.length,),
            len(classes),
            vocabulary=tokenizer.size,
            padding=tokenizer.special[0],
            tokenizer=tokenizer,
        )
        return Split(spec=spec, private=Population(train, test), public=public, class_names=classes)

    def _pieces(self, public: Sequence[str]) -> Sequence[str]:
        if self.vocabulary_file is None:
            return made_vocabulary(public, self.vocabulary)
        file = Path(self.vocabulary_file).expanduser()
        if not file.is_file():
            raise UserError(f"dataset.vocabulary_file={file} is not there; leave it out to make a vocabulary.")
        pieces = file.read_text(encoding="utf-8").splitlines()
        if missing := [one for one in SPECIAL if one not in pieces]:
            raise UserError(
                f"dataset.vocabulary_file={file} has no line {missing[0]}, so it is no WordPiece vocabulary."
            )
        return pieces

    def _encoded(
        self, rows: Sequence[int], texts: Sequence[str], tokenizer: WordPiece, most: int
    ) -> dict[tuple[int, ...], int]:
        """Return the padded ids of the first ``most`` texts that fit, with their rows, in this order; each once."""
        found: dict[tuple[int, ...], int] = {}
        for row in rows:
            ids = tokenizer.encode(texts[row])
            if len(ids) <= self.length:
                padded = (*ids, *[tokenizer.special[0]] * (self.length - len(ids)))
                found.setdefault(padded, row)
            if len(found) == most:
                break
        return found
