"""The family of labelled texts: WordPiece ids of a fixed length, with a vocabulary made of public texts or a file's.

The package ``tokenizers`` cuts texts as BERT does (lower case, accents and punctuation apart, the longest piece first).
A vocabulary that is made here holds the special tokens, every character, alone and as a continuation, and the most
frequent words of the *public* texts, so that no private word is published by it; ties go by the alphabet. Texts are
``[CLS] words [SEP]``, then ``[PAD]``; those with more tokens than there is room for are left out and counted, as are
those whose ids another text has.

``dataset.canaries`` puts random texts of a public format into the private training part (Carlini et al., The Secret
Sharer, USENIX Security 2019): ``code 0 3 is 4 7 1 2 9 0``, where the number is the canary's and the six digits are
drawn by seed. They are repeated up to a hundred times, and no other part holds one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch

from mibench.data import Canaries, Examples, InputSpec, Population, Split
from mibench.datasets.base import Dataset
from mibench.datasets.families.text_files import Corpus, lines_of
from mibench.errors import UserError
from mibench.options import Count, CountOrNone, Range, Several, option
from mibench.seeding import derive, generator

#: The special tokens, at the ids 0 to 3 of a vocabulary that is made here.
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

#: The options with the sizes of the parts that every split has, in the order in which texts are dealt.
PARTS = ("public", "private_train", "private_test")

#: Random digits of a canary.
DIGITS = 6

#: The pieces of which canaries are made, in a vocabulary that is made here.
CANARY = ("code", "is", *"0123456789")

#: How many canaries there can be: their numbers have two digits.
Canary = Annotated[int, Range("from 0 to 100", lambda value: 0 <= value <= 100)]

#: How often a canary is repeated.
Repeats = Annotated[int, Range("from 1 to 100", lambda value: 1 <= value <= 100)]


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


def made_vocabulary(texts: Sequence[str], size: int, always: Sequence[str] = ()) -> list[str]:
    """Return the pieces of a vocabulary made of texts, at most ``size`` of them unless the characters are more.

    Args:
        texts: The texts.
        size: The most pieces.
        always: Pieces that it has whatever the texts are.

    >>> made_vocabulary(["ab ab b", "c"], 11)
    ['[PAD]', '[UNK]', '[CLS]', '[SEP]', '##a', '##b', '##c', 'a', 'b', 'c', 'ab']
    """
    counted = Counter(word for text in texts for word in WordPiece.words(text))
    letters = sorted({letter for word in counted for letter in word})
    begun = [*SPECIAL, *(f"##{letter}" for letter in letters), *letters]
    begun += [piece for piece in always if piece not in letters]
    words = (word for word in counted if len(word) > 1 and word not in always)
    frequent = sorted(words, key=lambda word: (-counted[word], word))
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
    held_out: CountOrNone = option(0, since=2)
    """Texts of the control victim, parted as the private ones are; 0 leaves no control."""
    canaries: Canary = option(0, since=2)
    """Random texts of a public format in the private training part."""
    canary_repeats: Sequence[Repeats] = option((1, 3, 10, 30, 100), since=2)
    """How often each stands there; canaries take the values in turn."""

    @abstractmethod
    def corpus(self) -> Corpus:
        """Return all texts in the file's order.

        Raises:
            DatasetNotFoundError: If the files are not there.
            UserError: If they are others than they should be.
        """

    def load(self) -> Split:
        """Return the split: public texts come first in the shuffled order, since the vocabulary is made of them.

        Raises:
            DatasetNotFoundError: If the files are not there.
            UserError: If ``tokenizers`` is not installed, or there are fewer texts than are asked for.
        """
        corpus = self.corpus()
        try:
            import tokenizers  # noqa: F401
        except ImportError:
            raise UserError(
                f"dataset={self.card.name} cuts texts with the package tokenizers; install it with pip install "
                "'mibench[text]'."
            ) from None
        order = torch.randperm(len(corpus.texts), generator=generator(derive(self.seed, "parts"))).tolist()
        rows = [row for row in order if len(corpus.texts[row].split()) >= self.min_words]
        sizes, pools = self._sizes(), [(rows, (*PARTS, *(["held_out"] if self.held_out else [])))]
        if corpus.roles:
            roles = {"public": PARTS[:1], "private": PARTS[1:], "held_out": ("held_out",)}
            pools = [([row for row in rows if corpus.roles[row] == role], parts) for role, parts in roles.items()]
        tokenizer = WordPiece(self._pieces([corpus.texts[row] for row in pools[0][0][: self.public]]))
        found: dict[tuple[int, ...], int] = {}
        longer = sum(self._encode(pool, corpus.texts, tokenizer, parts, found) for pool, parts in pools)
        x = torch.tensor(list(found), dtype=torch.long)
        y = torch.tensor([corpus.labels[row] for row in found.values()], dtype=torch.long)
        public, *parts = (  # copies: what the attacker owns lies in no memory of private texts
            Examples(own.clone(), label.clone()) for own, label in zip(x.split(sizes), y.split(sizes), strict=True)
        )
        canaries = self._canaries(tokenizer)
        spec = InputSpec(
            "text",
            (self.length,),
            len(corpus.classes),
            vocabulary=tokenizer.size,
            padding=tokenizer.special[0],
            tokenizer=tokenizer,
        )
        reading = (f"Texts longer than dataset.length={self.length} tokens left out: {longer}.",) if longer else ()
        return Split(
            spec=spec,
            private=Population(parts[0] if canaries is None else with_canaries(parts[0], canaries, spec), parts[1]),
            public=public,
            held_out=Population(parts[2], parts[3]) if self.held_out else None,
            class_names=corpus.classes,
            reading=(*corpus.reading, *reading),
            canaries=canaries,
        )

    def _sizes(self) -> list[int]:
        """Return the sizes of public, private training, private test and, where there are, both held-out parts.

        Raises:
            UserError: If the held-out texts are too few to part.
        """
        sizes = [self.public, self.private_train, self.private_test]
        if not self.held_out:
            return sizes
        tested = max(1, round(self.held_out * self.private_test / (self.private_train + self.private_test)))
        if tested >= self.held_out:
            raise UserError(
                f"Expected dataset.held_out to be 0 or a number of texts to train and test on, but got {self.held_out}."
            )
        return [*sizes, self.held_out - tested, tested]

    def _pieces(self, public: Sequence[str]) -> Sequence[str]:
        if self.vocabulary_file is None:
            return made_vocabulary(public, self.vocabulary, CANARY if self.canaries else ())
        file = Path(self.vocabulary_file).expanduser()
        if not file.is_file():
            raise UserError(f"dataset.vocabulary_file={file} is not there; leave it out to make a vocabulary.")
        pieces = lines_of(file, f"dataset.vocabulary_file={file}")
        if missing := [one for one in SPECIAL if one not in pieces]:
            raise UserError(
                f"dataset.vocabulary_file={file} has no line {missing[0]}, so it is no WordPiece vocabulary."
            )
        if twice := [piece for piece, count in Counter(pieces).items() if count > 1]:
            raise UserError(
                f"dataset.vocabulary_file={file} has the piece '{twice[0]}' on two lines, so ids of its pieces are not "
                "known; take one out."
            )
        return pieces

    def _encode(
        self,
        rows: Sequence[int],
        texts: Sequence[str],
        tokenizer: WordPiece,
        parts: Sequence[str],
        found: dict[tuple[int, ...], int],
    ) -> int:
        """Add the padded ids of the first texts that fit, as many as the parts take, with their rows; each once.

        Returns:
            How many of the texts that were looked at do not fit.

        Raises:
            UserError: If there are fewer.
        """
        sizes = {part: getattr(self, part) for part in parts}
        before, longer, count = len(found), 0, sum(sizes.values())
        for row in rows:
            if len(found) - before == count:
                break
            ids = tokenizer.encode(texts[row])
            longer += len(ids) > self.length
            if len(ids) <= self.length:
                found.setdefault((*ids, *[tokenizer.special[0]] * (self.length - len(ids))), row)
        if (there := len(found) - before) < count:
            scaled = " ".join(f"dataset.{part}={int(size * there / count)}" for part, size in sizes.items())
            less = f", as with {scaled}" if min(size * there // count for size in sizes.values()) > 1 else ""
            *first, last = (f"dataset.{part}" for part in parts)
            sums = f"The sizes {', '.join(first)} and {last} add up to" if first else f"The size {last} is"
            raise UserError(
                f"{sums} {count} texts, but {there} are long enough and fit dataset.length={self.length}; lower "
                f"{'one of them' if first else 'it'}{less}."
            )
        return longer

    def _canaries(self, tokenizer: WordPiece) -> Canaries | None:
        """Return the canaries; None where none are asked for.

        Raises:
            UserError: If the vocabulary lacks their pieces, or they are longer than a text.
        """
        if not self.canaries:
            return None
        if not self.canary_repeats:
            raise UserError("Expected dataset.canary_repeats to be a list of at least one number, but got [].")
        digits = torch.randint(10, (self.canaries, DIGITS), generator=generator(derive(self.seed, "canaries")))
        written = [
            f"code {' '.join(f'{number:02d}')} is {' '.join(map(str, row))}"
            for number, row in enumerate(digits.tolist())
        ]
        encoded = [list(tokenizer.encode(one)) for one in written]
        size = len(encoded[0])
        if any(tokenizer.special[1] in ids or len(ids) != size for ids in encoded):
            raise UserError(
                f"dataset.canaries={self.canaries} needs the pieces {' '.join(CANARY)}, and dataset.vocabulary_file "
                "lacks one of them; add them to it or leave the canaries out."
            )
        if size > self.length:
            raise UserError(f"A canary has {size} tokens; set dataset.length to as many, or more.")
        ids = torch.tensor(encoded)
        counts = torch.tensor([self.canary_repeats[one % len(self.canary_repeats)] for one in range(self.canaries)])
        padding = torch.full((self.canaries, self.length - size), tokenizer.special[0])
        choices = torch.tensor([tokenizer.encode(str(digit))[1] for digit in range(10)])
        return Canaries(torch.cat([ids, padding], 1), counts, tuple(range(size - 1 - DIGITS, size - 1)), choices)


def with_canaries(train: Examples, canaries: Canaries, spec: InputSpec) -> Examples:
    """Return training texts with every canary as often behind them as it counts; classes take turns."""
    rows = torch.arange(len(canaries.x)).repeat_interleave(canaries.counts)
    return Examples(torch.cat([train.x, canaries.x[rows]]), torch.cat([train.y, rows % spec.classes]))
