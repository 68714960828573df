"""Anyone's images: a folder with one folder per class (a person, a patient, a kind of thing).

``dataset.root`` is the private data. The attacker's data are another such folder, ``dataset.public_root``, or the last
``dataset.public_classes`` classes of the private folder by name, which then are not private. The control victim learns
``dataset.held_out_root``, or the public classes where there are at least two. Classes are the folders sorted by name
(``dataset.order`` gives another order), and their images lie at any depth, as torchvision's ``ImageFolder`` has it;
hidden files and files that are no images by their ending are passed over and counted. A class folder's name is its
identity: the same name in two of these roles is refused.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from mibench.card import DatasetCard
from mibench.data import Split, shared_rows
from mibench.datasets.base import Dataset, class_split
from mibench.datasets.families.pixels import read_set
from mibench.errors import UserError, nearest
from mibench.options import Channels, Count, CountOrNone, Positive, Several, Share, option
from mibench.storage.image_files import PassedOver, class_folders, images_of, subfolders, too_few

log = logging.getLogger("mibench")


class ImageFolder(Dataset):
    """A folder of class folders."""

    card = DatasetCard(
        name="image_folder",
        title="A folder of images",
        modalities=("image",),
        licence="the owner's",
        may_show=False,
        class_folders=("root", "public_root", "held_out_root"),
    )

    root: Path | str | None = None
    """The private folder."""
    public_root: Path | str | None = None
    """The attacker's folder; null where there is none."""
    public_classes: CountOrNone = 0
    """How many of the last private classes, by name, become the attacker's instead."""
    order: Sequence[str] | None = option(None, since=2)
    """Class folders in the order of the model's labels, before all others by name; null sorts all by name."""
    held_out_root: Path | str | None = None
    """The control victim's folder; null takes the public classes."""
    channels: Channels | None = None
    """1 (grey) or 3 (colour); null keeps those of the files."""
    size: Count | None = None
    """Pixels per side of the square that every image is resized to, not cropped; null keeps that of the files."""
    max_per_class: Several | None = None
    """Most images per class, the first by name; null takes all."""
    upright: bool = option(True, since=2)
    """Whether pictures are turned as their EXIF tag says; torchvision's ``ImageFolder`` does not turn them."""
    white: Positive | None = option(None, since=2)
    """The level of the files that is white (4095 of 12 bits); null: 255, and 65535 of files of more than 8 bits."""
    mirrored: bool = False
    """Whether a mirrored image shows the same class, as of a face."""
    test_fraction: Share = 0.25
    """Share of each class that the target is tested on."""

    def __post_init__(self) -> None:
        """Refuse a missing folder, and two sources of public images."""
        super().__post_init__()
        if self.root is None:
            raise UserError("Dataset 'image_folder' needs the folder of the private images; set dataset.root=FOLDER.")
        if self.public_classes and self.public_root is not None:
            raise UserError(
                f"Expected dataset.public_classes to be 0 beside dataset.public_root, but got {self.public_classes}."
            )

    def load(self) -> Split:
        """Return the split.

        Raises:
            UserError: If a folder, a class or an image cannot be used; the message names it.
        """
        private, public, held_out = (
            class_folders(key, getattr(self, key)) for key in ("root", "public_root", "held_out_root")
        )
        private = in_order(private, self.order or ())
        if self.public_classes:
            private, public = private[: -self.public_classes], private[-self.public_classes :]
        if len(private) < 2:
            raise UserError(
                f"dataset.root={self.root} leaves {len(private)} private class folder(s), with dataset.public_classes="
                f"{self.public_classes} set aside; a classifier needs at least 2{_below(private)}"
            )
        if len(held_out) == 1:
            raise UserError(f"dataset.held_out_root={self.held_out_root} holds 1 class folder; 2 are needed.")
        refuse_shared_names(private, public, held_out)

        folders = [*private, *public, *held_out]
        passed = PassedOver()
        files = [self._images_of(folder, passed) for folder in folders]
        read = read_set([file for of_class in files for file in of_class], self.channels, self.size, self.upright,
                        self.white)  # fmt: skip
        for sentence in read.doubts:
            log.warning("%s", sentence)
        said = [sentence for sentence in (*read.sentences, str(passed)) if sentence]
        for sentence in said:
            log.info("reading   %s", sentence)
        x = read.x
        y = torch.arange(len(folders)).repeat_interleave(torch.tensor([len(of_class) for of_class in files]))
        self._refuse_copies(x, [file for of_class in files for file in of_class], y, len(private), len(public))
        ids = torch.arange(len(folders)).split([len(private), len(public), len(held_out)])
        control = ids[2].tolist() if held_out else ([] if len(public) < 2 else None)
        split = class_split(
            x,
            y,
            private=ids[0].tolist(),
            public=ids[1].tolist(),
            held_out=control,
            test_fraction=self.test_fraction,
            seed=self.seed,
            class_names=[folder.name for folder in folders],
            mirrored=self.mirrored,
            notes=() if control or control is None else ("There are no control classes: see dataset.held_out_root.",),
        )
        return dataclasses.replace(split, reading=(*read.doubts, *said))

    def _refuse_copies(self, x: Tensor, files: Sequence[Path], y: Tensor, private: int, public: int) -> None:
        """Raise where a public image is, pixel for pixel, a private one."""
        own, others = x[y < private], x[(y >= private) & (y < private + public)]
        for row in shared_rows(others, own):
            twin = next(file for file, image in zip(files, own, strict=False) if torch.equal(image, others[row]))
            raise UserError(
                f"{files[len(own) + row]} is the same picture as {twin}, which is private; public images must show "
                "other people or things: take it out."
            )

    def _images_of(self, folder: Path, passed: PassedOver) -> list[Path]:
        images = images_of(folder, passed)
        if len(images) < 2:
            raise too_few(folder)
        return images[: self.max_per_class]


def in_order(folders: Sequence[Path], order: Sequence[str]) -> list[Path]:
    """Return class folders with those that ``order`` names first, in that order.

    Raises:
        UserError: If ``order`` names a folder twice, or one that is not there.
    """
    by_name = {folder.name: folder for folder in folders}
    if odd := [name for name in order if name not in by_name]:
        hint = nearest(odd[0], by_name, "it names folders of dataset.root.")
        raise UserError(f"dataset.order names '{odd[0]}', but there is no such class folder; {hint}")
    if len({*order}) < len(order):
        raise UserError(f"Expected dataset.order to name every folder once, but got {', '.join(order)}.")
    return [*(by_name[name] for name in order), *(folder for folder in folders if folder.name not in order)]


def _below(private: Sequence[Path]) -> str:
    """Return the end of the sentence on too few classes: what to try where the only folder holds the classes."""
    deeper = len(subfolders(private[0])) if len(private) == 1 else 0
    return f"; is it dataset.root={private[0]}, which holds {deeper} folders?" if deeper > 1 else "."


def refuse_shared_names(*roles: Sequence[Path]) -> None:
    """Raise where private, public or held-out class folders bear the same name: one identity in two roles."""
    for one, other in combinations(roles, 2):
        names = {folder.name: folder for folder in one}
        for folder in other:
            if folder.name in names:
                raise UserError(
                    f"Class folders {names[folder.name]} and {folder} bear the same name, so one identity would play "
                    "two of the roles private, public and held out; rename or remove one of them."
                )
