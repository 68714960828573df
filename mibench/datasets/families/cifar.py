"""What CIFAR-10 and CIFAR-100 share: pictures of 32x32 pixels, parted by class, from an archive or class folders.

The first classes by name are private. The attacker owns the training pictures of the others, which the control victim
learns too. With ``public_classes=0`` all classes are private, as gradient inversion is reported: then there are neither
public data nor a control victim, which attacks on client updates do not need. Training and test data are the official
ones.

The archive's files are pickles, which could hold any code: they are read by an unpickler that makes arrays and plain
containers and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from mibench.data import Examples, InputSpec, Population, Split, shared_rows
from mibench.datasets.base import COINCIDE, Dataset, few_of_each, relabel, resize, without
from mibench.datasets.families.pixels import read_image
from mibench.errors import UserError
from mibench.limits import GIB, plain_file
from mibench.options import Count, CountOrNone
from mibench.storage.image_files import class_folders


@dataclass(frozen=True)
class Pictures:
    """Pictures that are read when they are asked for.

    Attributes:
        y: Class ids of shape ``(N,)``.
        read: From rows ``(n,)`` to images of shape ``(n, 3, 32, 32)`` in [0, 1].
    """

    y: Tensor
    read: Callable[[Tensor], Tensor]


class Cifar(Dataset):
    """Official pictures of the archive, or those in class folders; the archive counts where both are there."""

    #: The archive's folder, its files by part, and the keys of the labels and of their names.
    folder: ClassVar[str]
    train_files: ClassVar[Sequence[str]]
    test_files: ClassVar[Sequence[str]]
    names_file: ClassVar[str]
    labels_key: ClassVar[str]
    names_key: ClassVar[str]
    classes: ClassVar[int]

    size: Count = 32
    """Pixels per side; other than 32 resizes (bilinear, antialiased)."""
    public_classes: CountOrNone
    """How many of the last classes, by name, are the attacker's and the control victim's; 0 for none."""
    limit: Count | None = None
    """Most training pictures per class; null takes all."""

    def __post_init__(self) -> None:
        """Refuse to leave fewer than two classes private."""
        super().__post_init__()
        if self.public_classes > self.classes - 2:
            raise UserError(
                f"Expected dataset.public_classes to leave at least 2 of {self.classes} classes private, but got "
                f"{self.public_classes}."
            )

    def load(self) -> Split:
        """Return the split.

        Raises:
            DatasetNotFoundError: If neither layout is there.
            UserError: If a file cannot be read.
        """
        names, train, test = self._archive() or self._folders()
        ids = list(range(self.classes))
        private, others = ids[: self.classes - self.public_classes], ids[self.classes - self.public_classes :]
        own = Population(self._examples(train, private, self.limit), self._examples(test, private))
        notes: list[str] = []
        if (there := len(train.y) + len(test.y)) < 60_000:
            notes.append(f"Of the 60,000 official pictures {there:,} are there.")
        public = held_out = None
        if others:
            public = self._examples(train, others, self.limit)
            public = without(public, shared_rows(public.x, own.train.x, own.test.x), notes)
        if public is not None and len(others) > 1:
            held_out = Population(public, self._examples(test, others))
            notes.append(COINCIDE)
        else:
            notes.append("There are no control classes: see dataset.public_classes.")
        return Split(
            spec=InputSpec("image", (3, self.size, self.size), len(private), mirrored=True),
            private=own,
            public=public,
            held_out=held_out,
            held_out_is_public=held_out is not None,
            class_names=tuple(names[: len(private)]),
            notes=tuple(notes),
        )

    def _examples(self, pictures: Pictures, classes: Sequence[int], limit: int | None = None) -> Examples:
        """Return the pictures of some classes, of each at most ``limit``."""
        rows = torch.arange(len(pictures.y))
        if limit is not None:
            rows = few_of_each(pictures.y, classes, limit, self.seed)
        chosen = relabel(rows, pictures.y[rows], classes)
        return Examples(resize(pictures.read(chosen.x), self.size), chosen.y)

    def _archive(self) -> tuple[Sequence[str], Pictures, Pictures] | None:
        """Return the class names, the training and the test pictures of the archive; None where it is not there."""
        folder = Path(self.data_root) / self.folder
        if not folder.is_dir():
            return None
        files = [folder / name for name in (self.names_file, *self.train_files, *self.test_files)]
        if missing := [file for file in files if not file.is_file()]:
            raise self.not_found(missing)
        names = read_pickle(files[0]).get(self.names_key)
        if not isinstance(names, list) or len(names) != self.classes:
            raise UserError(f"{files[0]} does not name {self.classes} classes; unpack the archive again.")
        count = len(self.train_files)
        return names, self._batches(files[1 : 1 + count]), self._batches(files[1 + count :])

    def _batches(self, files: Sequence[Path]) -> Pictures:
        levels, labels = [], []
        for file in files:
            batch = read_pickle(file)
            data, ids = batch.get("data"), batch.get(self.labels_key)
            if not (
                isinstance(data, np.ndarray)
                and data.dtype == np.uint8
                and data.shape[1:] == (3072,)
                and isinstance(ids, list)
                and len(ids) == len(data)
                and all(isinstance(one, int) and 0 <= one < self.classes for one in ids)
            ):
                raise UserError(f"{file} holds no batch of {self.card.title}; unpack the archive again.")
            levels.append(torch.from_numpy(data).reshape(-1, 3, 32, 32))
            labels.append(torch.tensor(ids))
        joined = torch.cat(levels)
        return Pictures(torch.cat(labels), lambda rows: joined[rows].float() / 255)

    def _folders(self) -> tuple[Sequence[str], Pictures, Pictures]:
        """Return the class names, the training and the test pictures of the class folders."""
        parts = self.places(f"{self.card.name}/train", f"{self.card.name}/test")
        if not all(part.is_dir() for part in parts):
            raise self.not_found([*self.places(self.folder), *parts])
        train, test = (class_folders("data_root", part) for part in parts)
        names = [folder.name for folder in train]
        if len(names) != self.classes or names != [folder.name for folder in test]:
            raise UserError(f"{parts[0]} and {parts[1]} do not both hold the same {self.classes} class folders.")
        return names, _listed(train), _listed(test)


def _listed(folders: Sequence[Path]) -> Pictures:
    """Return the PNG files of class folders, in the order of classes and names."""
    files = [(label, file) for label, folder in enumerate(folders) for file in sorted(folder.glob("[!.]*.png"))]
    if empty := {*folders} - {file.parent for _, file in files}:
        raise UserError(f"{min(empty)} holds no PNG files; each class needs some.")

    def one(row: int) -> Tensor:
        image = read_image(files[row][1], 3)
        if image.shape != (3, 32, 32):
            raise UserError(f"{files[row][1]} has {image.shape[2]}x{image.shape[1]} pixels instead of 32x32.")
        return image

    def read(rows: Tensor) -> Tensor:
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return torch.stack(list(pool.map(one, rows.tolist())))

    return Pictures(torch.tensor([label for label, _ in files]), read)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of plain containers and arrays; nothing that they name besides is imported."""

    def find_class(self, module: str, name: str) -> Any:
        rebuild = np.empty(0).__reduce__()[0]  # numpy's own, wherever its versions keep it
        allowed = {
            ("numpy.core.multiarray", "_reconstruct"): rebuild,
            ("numpy._core.multiarray", "_reconstruct"): rebuild,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is no part of a table of numbers")
        return allowed[module, name]


def read_pickle(file: Path) -> dict[str, Any]:
    """Return the mapping that a pickle of arrays and plain containers holds; text of Python 2 becomes strings.

    Raises:
        UserError: If the file is no complete pickle of a mapping, or names anything but arrays.
    """
    try:
        with plain_file(file, str(file), GIB).open("rb") as source:
            content = _ArraysOnly(source, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError("it holds no mapping")
    except Exception as error:  # whatever an unpickler raises for a damaged file
        raise UserError(
            f"{file} cannot be read ({error or type(error).__name__}); unpack the archive again."
        ) from error
    return content
