"""What data look like to every part of mibench: examples, a split, and the facts an attacker may know of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from mibench.card import Modality


class Tokenizer(Protocol):
    """What turns texts into token ids and back."""

    @property
    def special(self) -> Sequence[int]:
        """The ids that stand for no part of a text: padding, separators, the unknown."""

    def encode(self, text: str) -> Sequence[int]:
        """Return the ids of a text."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ids, without what is no part of it (padding, separators)."""


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: The column's name in the original file.
        values: The categories in the order of their codes; empty for a numeric column.
        low: The least value that a numeric column can have, in its own units; None where nobody published one.
        high: The largest one.
    """

    name: str
    values: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None

    @property
    def categorical(self) -> bool:
        """Whether the column holds category codes 0..len(values)-1."""
        return bool(self.values)


@dataclass(frozen=True)
class InputSpec:
    """Public facts about a model's input and output: known to every attacker.

    Attributes:
        modality: The modality.
        shape: Shape of one example without the batch: ``(C, H, W)`` for images and spectrograms, ``(columns,)`` for
            tables, ``(tokens,)`` for texts, ``()`` for a node of a graph, which is named by its id.
        classes: Number of classes that the model tells apart.
        columns: The schema of a table; empty for other modalities.
        mirrored: Whether a mirrored image shows the same class (faces do, digits do not).
        low: The least value of an image's or spectrogram's entry.
        high: The largest one.
        vocabulary: Number of ids that an entry can be, tokens or nodes; 0 where entries are no ids.
        padding: The id that stands behind the end of a text.
        features: Numbers that describe one node of a graph; 0 for other modalities.
        tokenizer: Turns texts into ids and back; None for other modalities.
    """

    modality: Modality
    shape: tuple[int, ...]
    classes: int
    columns: tuple[Column, ...] = ()
    mirrored: bool = False
    low: float = 0.0
    high: float = 1.0
    vocabulary: int = 0
    padding: int = 0
    features: int = 0
    tokenizer: Tokenizer | None = field(default=None, compare=False, repr=False)

    @property
    def ranged(self) -> bool:
        """Whether entries are numbers between :attr:`low` and :attr:`high`."""
        return not self.vocabulary and not self.columns

    def blank(self, n: int, device: torch.device | str = "cpu") -> Tensor:
        """Return ``n`` examples that say nothing, shape ``(n, *shape)``.

        These are the middle of the range everywhere, padding alone, or category 0 and the number 0 in every column.
        """
        if self.vocabulary:
            return torch.full((n, *self.shape), self.padding, dtype=torch.long, device=device)
        value = (self.low + self.high) / 2 if self.ranged else 0.0
        return torch.full((n, *self.shape), value, device=device)

    def boxed(self, values: Tensor) -> Tensor:
        """Return values clamped to the range; ids and records as they are."""
        return values.clamp(self.low, self.high) if self.ranged else values

    def to_unit(self, values: Tensor) -> Tensor:
        """Return entries between :attr:`low` and :attr:`high` on the scale from 0 to 1."""
        return (values - self.low) / (self.high - self.low)

    def check(self, values: Tensor) -> None:
        """Refuse examples ``(N, *shape)`` that cannot be inputs.

        Raises:
            ValueError: Saying what is wrong.
        """
        if not len(values):
            return
        if not bool(torch.isfinite(values).all()):
            raise ValueError("Expected a finite reconstruction, but it holds NaN or infinite values.")
        low, high = float(values.min()), float(values.max())
        if self.vocabulary:
            if values.is_floating_point() or low < 0 or high >= self.vocabulary:
                raise ValueError(
                    f"Expected ids from 0 to {self.vocabulary - 1}, but got values from {low:g} to {high:g}."
                )
        elif self.ranged and (low < self.low or high > self.high):
            what = "images" if self.modality == "image" else f"{self.modality} inputs"
            raise ValueError(
                f"Expected {what} in [{self.low:g}, {self.high:g}], but got values from {low:.3g} to {high:.3g}."
            )
        for index, column in enumerate(self.columns):
            codes = values[:, index]
            if column.categorical and not bool(((codes >= 0) & (codes < len(column.values))).all()):
                raise ValueError(f"Expected codes of column '{column.name}' from 0 to {len(column.values) - 1}.")

    def column(self, name: str) -> int:
        """Return the position of the column called ``name``."""
        return [column.name for column in self.columns].index(name)


@dataclass(frozen=True)
class Examples:
    """Labelled examples.

    Attributes:
        x: Inputs of shape ``(N, ...)`` as the data set's :class:`InputSpec` describes them: images, spectrograms,
            records whose entries are category codes or plain numbers, token ids, node ids.
        y: Class ids of shape ``(N,)``.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: Tensor) -> Examples:
        return Examples(self.x[index], self.y[index])

    def to(self, device: torch.device | str) -> Examples:
        """Return the same examples on ``device``."""
        return Examples(self.x.to(device), self.y.to(device))

    def digest(self) -> str:
        """Return the SHA-256 of shapes, types and values."""
        sha = hashlib.sha256()
        for tensor in (self.x, self.y):
            sha.update(f"{tuple(tensor.shape)}{tensor.dtype}".encode())
            sha.update(tensor.contiguous().cpu().numpy().tobytes())
        return sha.hexdigest()


#: The most public images, evenly taken, on which judges are tried.
STRANGERS = 512


def evenly(images: Tensor, most: int) -> Tensor:
    """Return every k-th image, at most ``most`` of them, on the CPU."""
    return images[:: max(1, -(-len(images) // most))].cpu()


def digests(x: Tensor) -> list[str]:
    """Return the SHA-256 of every row's values."""
    return [hashlib.sha256(row.contiguous().numpy()).hexdigest() for row in x.cpu()]


def shared_rows(public: Tensor, *seen: Tensor) -> list[int]:
    """Return the rows of ``public`` that are, bit for bit, rows of a tensor in ``seen``."""
    theirs = {digest for x in seen for digest in digests(x)}
    return [row for row, digest in enumerate(digests(public)) if digest in theirs]


@dataclass(frozen=True)
class Graph:
    """A graph, of which a model learns the classes of nodes.

    Attributes:
        features: What is known of every node, shape ``(nodes, features)``.
        edges: Pairs of node ids, each undirected edge once with the smaller id first, shape ``(2, edges)``.
    """

    features: Tensor
    edges: Tensor

    def without_edges(self) -> Graph:
        """Return the same nodes, none of them linked."""
        return Graph(self.features, self.edges[:, :0])

    def to(self, device: torch.device | str) -> Graph:
        """Return the same graph on ``device``."""
        return Graph(self.features.to(device), self.edges.to(device))

    def digest(self) -> str:
        """Return the SHA-256 of features and edges."""
        return Examples(self.features, self.edges).digest()


@dataclass(frozen=True)
class Population:
    """Examples of the same classes, parted into what a model is trained on and what it is tested on.

    Attributes:
        train: What the model is trained on.
        test: What it is tested on.
        graph: The graph whose nodes the examples are, all of which the model sees; None for other data.
    """

    train: Examples
    test: Examples
    graph: Graph | None = None

    def digest(self) -> str:
        """Return the SHA-256 of both parts, and of the graph."""
        parts = [self.train.digest(), self.test.digest(), *([] if self.graph is None else [self.graph.digest()])]
        return hashlib.sha256("".join(parts).encode()).hexdigest()

    @property
    def seen(self) -> str:
        """The SHA-256 of all that a model trained on the population sees."""
        return self.train.digest() if self.graph is None else self.digest()


@dataclass(frozen=True)
class Captured:
    """A client update that came from elsewhere, in the place of private data.

    Attributes:
        update: Parameter name (as the user's model calls it) -> tensor.
        delta: Whether it is a difference of parameters rather than a gradient.
        batch_size: Examples behind it.
        labels: Their class ids where the user knows them, shape ``(batch,)``.
        local: Full-batch steps and step size of a delta, where known.
        mean: What the model's training subtracted from images in [0, 1], per channel, or from records, per encoded
            column; None leaves it to the target.
        std: What it then divided by.
        secret: The inputs behind the update, where known; unknown class ids are -1.
        spread: Standard deviation of every column of records, shape ``(columns,)``; None where nobody said it.
    """

    update: Mapping[str, Tensor]
    delta: bool
    batch_size: int
    labels: Tensor | None
    local: tuple[int, float] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    secret: Examples | None
    spread: Tensor | None = None

    def digest(self) -> str:
        """Return the SHA-256 of what an attack sees."""
        sha = hashlib.sha256(f"{self.delta}{self.batch_size}{self.local}{self.labels}".encode())
        for name, value in sorted(self.update.items()):
            sha.update(name.encode() + value.contiguous().numpy().tobytes())
        return sha.hexdigest()


@dataclass(frozen=True)
class Canaries:
    """Random texts of a public format that were put into the private training data, to see how well they are learned.

    Attributes:
        x: Token ids, shape ``(N, tokens)``.
        counts: How often each of them stands in the training data, shape ``(N,)``.
        secret: The positions of the tokens that were drawn at random, each for itself and evenly.
        choices: The ids that such a token can be.
    """

    x: Tensor
    counts: Tensor
    secret: tuple[int, ...]
    choices: Tensor


@dataclass(frozen=True)
class Split:
    """A dataset as mibench uses it.

    Attributes:
        spec: Public facts of the input, with the private classes counted.
        private: What the target is trained and tested on.
        public: All data the attacker may own; None where there are none. Disjoint from ``private`` in identity
            or class (tables: in records).
        held_out: Examples that the victim never saw, for the control victim; None where there are none.
        held_out_is_public: Whether ``held_out`` and ``public`` are the same people or classes.
        class_names: Names of the private classes in the order of their ids.
        sensitive: Name of the sensitive column (tables only).
        notes: Sentences on the classes and their control that a reader of class-level results must know.
        subject: What the images show, where a metric has to know: ``face``; empty where nobody said.
        captured: A client update from elsewhere; ``private`` is empty then.
        reading: Sentences on how files were read, which a reader of any result must know.
        canaries: Random texts that stand in the private training data and in no other part; None where there are none.
    """

    spec: InputSpec
    private: Population
    public: Examples | None = None
    held_out: Population | None = None
    held_out_is_public: bool = False
    class_names: tuple[str, ...] = ()
    sensitive: str = ""
    notes: tuple[str, ...] = field(default=())
    subject: str = ""
    captured: Captured | None = None
    reading: tuple[str, ...] = ()
    canaries: Canaries | None = None

    def summary(self) -> str:
        """Return what it holds, as a clause."""
        if self.captured is not None:
            shape = "x".join(map(str, self.spec.shape))
            return f"an update of {self.captured.batch_size} inputs of {shape}, {self.spec.classes} classes"
        return f"{len(self.private.train)} private training examples of {self.spec.classes} classes"
