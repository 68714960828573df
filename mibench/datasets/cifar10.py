"""CIFAR-10: colour photographs of ten kinds of things, 32x32 pixels, 50,000 to train on and 10,000 to test on.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009. Parted by class, as
:mod:`mibench.datasets.families.cifar` says: the target knows airplane to deer, dog to truck are public. Layout: the
archive's ``cifar-10-batches-py``, or ``cifar10/{train,test}/<class>/<NNNNN>.png``; where these are fewer than the
official pictures, a note says how many.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mibench.card import DatasetCard
from mibench.datasets.families.cifar import Cifar
from mibench.options import CountOrNone
from mibench.storage.fetching import Download


class Cifar10(Cifar):
    """CIFAR-10."""

    card = DatasetCard(
        name="cifar10",
        title="CIFAR-10",
        modalities=("image",),
        year=2009,
        licence="none stated; for research, the photographs come from searches of the web",
        may_show=False,
    )
    downloads = (
        Download(
            path="cifar-10-batches-py/test_batch",
            url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            md5="c58f30108f718f92721af3b95e74349a",
            unpack="tar",
            instead=("cifar10/train",),
        ),
    )
    folder: ClassVar[str] = "cifar-10-batches-py"
    train_files: ClassVar[Sequence[str]] = tuple(f"data_batch_{number}" for number in range(1, 6))
    test_files: ClassVar[Sequence[str]] = ("test_batch",)
    names_file: ClassVar[str] = "batches.meta"
    labels_key: ClassVar[str] = "labels"
    names_key: ClassVar[str] = "label_names"
    classes: ClassVar[int] = 10

    public_classes: CountOrNone = 5
    """How many of the last classes, by name, are the attacker's and the control victim's; 0 for none."""
