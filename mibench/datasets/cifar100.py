"""CIFAR-100: colour photographs of a hundred kinds of things, 32x32 pixels, 500 of each to train on and 100 to test on.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009. Parted by class, as
:mod:`mibench.datasets.families.cifar` says; classes are the fine ones. Layout: the archive's ``cifar-100-python``, or
``cifar100/{train,test}/<class>/<NNNNN>.png``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mibench.card import DatasetCard
from mibench.datasets.families.cifar import Cifar
from mibench.options import CountOrNone
from mibench.storage.fetching import Download


class Cifar100(Cifar):
    """CIFAR-100."""

    card = DatasetCard(
        name="cifar100",
        title="CIFAR-100",
        modalities=("image",),
        year=2009,
        bib="cifar10",
        licence="none stated; for research, the photographs come from searches of the web",
        may_show=False,
    )
    downloads = (
        Download(
            path="cifar-100-python/test",
            url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            sha256="85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            md5="eb9058c3a382ffc7106e4002c42a8d85",
            unpack="tar",
            instead=("cifar100/train",),
        ),
    )
    folder: ClassVar[str] = "cifar-100-python"
    train_files: ClassVar[Sequence[str]] = ("train",)
    test_files: ClassVar[Sequence[str]] = ("test",)
    names_file: ClassVar[str] = "meta"
    labels_key: ClassVar[str] = "fine_labels"
    names_key: ClassVar[str] = "fine_label_names"
    classes: ClassVar[int] = 100

    public_classes: CountOrNone = 50
    """How many of the last classes, by name, are the attacker's and the control victim's; 0 for none."""
