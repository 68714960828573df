"""CIFAR-100: as :mod:`mibench.datasets.cifar10`, of a hundred kinds of things with 500 pictures each to train on.

A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, University of Toronto, 2009. Classes are the fine
ones. Layout: the archive's ``cifar-100-python``, or ``cifar100/{train,test}/<class>/<NNNNN>.png``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from mibench.card import DatasetCard
from mibench.datasets.cifar10 import Cifar10
from mibench.options import Count, CountOrNone
from mibench.storage.fetching import Download


class Cifar100(Cifar10):
    """CIFAR-100.

    Args:
        data_root: Folder with ``cifar-100-python`` or ``cifar100``. The rest is explained in
            :class:`mibench.datasets.cifar10.Cifar10`.
    """

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

    def __init__(
        self,
        *,
        data_root: Path | str,
        seed: int = 0,
        size: Count = 32,
        public_classes: CountOrNone = 50,
        limit: Count | None = None,
    ) -> None:
        super().__init__(data_root=data_root, seed=seed, size=size, public_classes=public_classes, limit=limit)
