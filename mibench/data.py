"""What data look like to every part of mibench: examples, a split, and the facts an attacker may know of both."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mibench.card import Modality


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: The column's name in the original file.
        values: The categories in the order of their codes; empty for a numeric column.
    """

    name: str
    values: tuple[str, ...] = ()

    @property
    def categorical(self) -> bool:
        """Whether the column holds category codes 0..len(values)-1."""
        return bool(self.values)


@dataclass(frozen=True)
class InputSpec:
    """Public facts about a model's input and output: known to every attacker.

    Attributes:
        modality: The modality.
        shape: Shape of one example without the batch: ``(C, H, W)`` for images, ``(columns,)`` for tables.
        classes: Number of classes that the model tells apart.
        columns: The schema of a table; empty for other modalities.
        mirrored: Whether a mirrored image shows the same class (faces do, digits do not).
    """

    modality: Modality
    shape: tuple[int, ...]
    classes: int
    columns: tuple[Column, ...] = ()
    mirrored: bool = False

    def column(self, name: str) -> int:
        """Return the position of the column called ``name``."""
        return [column.name for column in self.columns].index(name)


@dataclass(frozen=True)
class Examples:
    """Labelled examples.

    Attributes:
        x: Images of shape ``(N, C, H, W)`` in [0, 1], or records of shape ``(N, columns)`` whose entries are
            category codes or plain numbers.
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


def shared_rows(public: Tensor, *seen: Tensor) -> list[int]:
    """Return the rows of ``public`` that are, bit for bit, rows of a tensor in ``seen``."""

    def digests(x: Tensor) -> list[bytes]:
        return [hashlib.sha256(row.contiguous().numpy()).digest() for row in x.cpu()]

    theirs = {digest for x in seen for digest in digests(x)}
    return [row for row, digest in enumerate(digests(public)) if digest in theirs]


@dataclass(frozen=True)
class Population:
    """Examples of the same classes, parted into what a model is trained on and what it is tested on."""

    train: Examples
    test: Examples

    def digest(self) -> str:
        """Return the SHA-256 of both parts."""
        return hashlib.sha256((self.train.digest() + self.test.digest()).encode()).hexdigest()


@dataclass(frozen=True)
class Captured:
    """A client update that came from elsewhere, in the place of private data.

    Attributes:
        update: Parameter name (as the user's model calls it) -> tensor.
        delta: Whether it is a difference of parameters rather than a gradient.
        batch_size: Examples behind it.
        labels: Their class ids where the user knows them, shape ``(batch,)``.
        local: Full-batch steps and step size of a delta, where known.
        mean: What the model's training subtracted from images in [0, 1], per channel; None leaves it to the target.
        std: What it then divided by.
        secret: The images behind the update, where known; unknown class ids are -1.
    """

    update: Mapping[str, Tensor]
    delta: bool
    batch_size: int
    labels: Tensor | None
    local: tuple[int, float] | None
    mean: Sequence[float] | None
    std: Sequence[float] | None
    secret: Examples | None

    def digest(self) -> str:
        """Return the SHA-256 of what an attack sees."""
        sha = hashlib.sha256(f"{self.delta}{self.batch_size}{self.local}{self.labels}".encode())
        for name, value in sorted(self.update.items()):
            sha.update(name.encode() + value.contiguous().numpy().tobytes())
        return sha.hexdigest()


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
