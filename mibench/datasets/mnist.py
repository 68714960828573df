"""MNIST: handwritten digits of 28x28 pixels, 60,000 in the training file and 10,000 in the test file.

Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-based learning applied to document recognition, Proceedings of
the IEEE, 1998. Parted as in the protocol of KED-MI: the target knows the digits 0-4, the attacker owns the training
pictures of 5-9, which the control victim learns too. Training and test data are those of the official files. Layout:
``MNIST/raw/*-ubyte``, plain or ``.gz``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from mibench.card import DatasetCard
from mibench.data import Examples, InputSpec, Population, Split
from mibench.datasets.base import COINCIDE, Dataset, few_of_each, relabel, resize
from mibench.errors import UserError
from mibench.limits import GIB, content, gunzipped
from mibench.options import Count, Digit
from mibench.storage.fetching import Download


class Mnist(Dataset):
    """MNIST."""

    card = DatasetCard(
        name="mnist",
        title="MNIST",
        modalities=("image",),
        year=1998,
        licence="CC BY-SA 3.0",
        may_show=True,
    )
    downloads = (
        Download(
            path="MNIST/raw/train-images-idx3-ubyte.gz",
            url="https://ossci-datasets.s3.amazonaws.com/mnist/train-images-idx3-ubyte.gz",
            md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
            instead=("MNIST/raw/train-images-idx3-ubyte",),
        ),
        Download(
            path="MNIST/raw/train-labels-idx1-ubyte.gz",
            url="https://ossci-datasets.s3.amazonaws.com/mnist/train-labels-idx1-ubyte.gz",
            md5="d53e105ee54ea40749a09fcbcd1e9432",
            instead=("MNIST/raw/train-labels-idx1-ubyte",),
        ),
        Download(
            path="MNIST/raw/t10k-images-idx3-ubyte.gz",
            url="https://ossci-datasets.s3.amazonaws.com/mnist/t10k-images-idx3-ubyte.gz",
            md5="9fb629c4189551a2d022fa330f9573f3",
            instead=("MNIST/raw/t10k-images-idx3-ubyte",),
        ),
        Download(
            path="MNIST/raw/t10k-labels-idx1-ubyte.gz",
            url="https://ossci-datasets.s3.amazonaws.com/mnist/t10k-labels-idx1-ubyte.gz",
            md5="ec29112dd5afa0611ce80d1b7f02629c",
            instead=("MNIST/raw/t10k-labels-idx1-ubyte",),
        ),
    )

    size: Count = 32
    """Pixels per side: 28 keeps the originals, 32 adds a black border, others are resized from the bordered picture."""
    private: Sequence[Digit] = (0, 1, 2, 3, 4)
    """Digits of the target."""
    public: Sequence[Digit] = (5, 6, 7, 8, 9)
    """Digits of the attacker and of the control victim."""
    limit: Count | None = None
    """Most training pictures per digit; null takes all."""

    def __post_init__(self) -> None:
        """Refuse digits that are private and public."""
        super().__post_init__()
        if overlap := set(self.private) & set(self.public):
            raise UserError(f"Digits {sorted(overlap)} stand in dataset.private and in dataset.public; part them.")

    def load(self) -> Split:
        """Return the split.

        Raises:
            DatasetNotFoundError: If one of the four files is not there.
        """
        train, test = self._examples("train"), self._examples("t10k")
        private, public = self._population(train, test, self.private), self._population(train, test, self.public)
        return Split(
            spec=InputSpec("image", (1, self.size, self.size), len(self.private)),
            private=private,
            public=public.train,
            held_out=public,
            held_out_is_public=True,
            class_names=tuple(f"digit {digit}" for digit in self.private),
            notes=(COINCIDE,),
        )

    def _examples(self, part: str) -> Examples:
        names = (f"MNIST/raw/{part}-{what}-ubyte" for what in ("images-idx3", "labels-idx1"))
        images, labels = (read_idx(self.first_file(name, f"{name}.gz")) for name in names)
        return Examples(images, labels.long())

    def _population(self, train: Examples, test: Examples, digits: Sequence[int]) -> Population:
        chosen = relabel(train.x, train.y, digits)
        if self.limit is not None:
            chosen = chosen[few_of_each(chosen.y, range(len(digits)), self.limit, self.seed)]
        return Population(self._scaled(chosen), self._scaled(relabel(test.x, test.y, digits)))

    def _scaled(self, examples: Examples) -> Examples:
        x = examples.x[:, None].float() / 255
        return Examples(x if self.size == 28 else resize(pad(x, (2, 2, 2, 2)), self.size), examples.y)


#: Bytes of an IDX file: the training images have 47 MB, those of EMNIST 550 MB.
LARGEST = GIB


def read_idx(file: Path) -> Tensor:
    """Return the bytes of an IDX file, plain or gzipped, as a ``uint8`` tensor of the shape it declares.

    Raises:
        UserError: If the file is no IDX file of bytes, or is cut short.
    """
    try:
        raw = gunzipped(file, LARGEST) if file.suffix == ".gz" else content(file, str(file), LARGEST)
        if raw[:3] != b"\0\0\x08":
            raise ValueError("it does not begin as one")
        rank = raw[3]
        shape = np.frombuffer(raw, ">u4", count=rank, offset=4).astype(int)
        values = np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, ValueError, IndexError) as error:
        raise UserError(f"{file} is no complete IDX file ({error}); download it again.") from error
    return torch.from_numpy(values.copy())
