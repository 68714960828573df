"""Anyone's images: a folder with one folder per class (a person, a patient, a kind of thing).

``dataset.root`` is the private data. The attacker's data are another such folder, ``dataset.public_root``, or the last
``dataset.public_classes`` classes of the private folder by name, which then are not private. The control victim learns
``dataset.held_out_root``, or the public classes where there are at least two. Classes are the folders sorted by name;
hidden files and files that are no images by their ending are passed over. A class folder's name is its identity: the
same name in two of these roles is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from PIL import ImageOps
from torch import Tensor

from mibench.card import DatasetCard
from mibench.data import Split, shared_rows
from mibench.datasets.base import Dataset, class_split, resize
from mibench.errors import UserError
from mibench.limits import open_image
from mibench.options import Channels, Count, CountOrNone, Several, Share

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp", ".gif", ".tif", ".tiff")


class ImageFolder(Dataset):
    """A folder of class folders."""

    card = DatasetCard(
        name="image_folder",
        title="A folder of images",
        modalities=("image",),
        licence="the owner's",
        may_show=False,
    )

    root: Path | str | None = None
    """The private folder."""
    public_root: Path | str | None = None
    """The attacker's folder; null where there is none."""
    public_classes: CountOrNone = 0
    """How many of the last private classes, by name, become the attacker's instead."""
    held_out_root: Path | str | None = None
    """The control victim's folder; null takes the public classes."""
    channels: Channels | None = None
    """1 (grey) or 3 (colour); null keeps those of the files."""
    size: Count | None = None
    """Pixels per side of the square that every image is resized to, not cropped; null keeps that of the files."""
    max_per_class: Several | None = None
    """Most images per class, the first by name; null takes all."""
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
        if self.public_classes:
            private, public = private[: -self.public_classes], private[-self.public_classes :]
        if len(private) < 2:
            raise UserError(
                f"dataset.root={self.root} leaves {len(private)} private class folder(s), with "
                f"dataset.public_classes={self.public_classes} set aside; a classifier needs at least 2."
            )
        if len(held_out) == 1:
            raise UserError(f"dataset.held_out_root={self.held_out_root} holds 1 class folder; 2 are needed.")
        refuse_shared_names(private, public, held_out)

        folders = [*private, *public, *held_out]
        files = [self._images_of(folder) for folder in folders]
        x = read_images([file for of_class in files for file in of_class], self.channels, self.size)
        y = torch.arange(len(folders)).repeat_interleave(torch.tensor([len(of_class) for of_class in files]))
        self._refuse_copies(x, [file for of_class in files for file in of_class], y, len(private), len(public))
        ids = torch.arange(len(folders)).split([len(private), len(public), len(held_out)])
        control = ids[2].tolist() if held_out else ([] if len(public) < 2 else None)
        return class_split(
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

    def _refuse_copies(self, x: Tensor, files: Sequence[Path], y: Tensor, private: int, public: int) -> None:
        """Raise where a public image is, pixel for pixel, a private one."""
        own, others = x[y < private], x[(y >= private) & (y < private + public)]
        for row in shared_rows(others, own):
            twin = next(file for file, image in zip(files, own, strict=False) if torch.equal(image, others[row]))
            raise UserError(
                f"{files[len(own) + row]} is the same picture as {twin}, which is private; public images must show "
                "other people or things: take it out."
            )

    def _images_of(self, folder: Path) -> list[Path]:
        files = (entry for entry in sorted(folder.iterdir()) if entry.is_file() and entry.name[0] != ".")
        images = [file for file in files if file.suffix.lower() in ENDINGS]
        if len(images) < 2:
            raise UserError(
                f"Class folder {folder} holds fewer than 2 images ({', '.join(ENDINGS)}), one to train on and one to "
                "test on: add more or take the folder out."
            )
        return images[: self.max_per_class]


def class_folders(key: str, root: Path | str | None) -> list[Path]:
    """Return the class folders of ``dataset.<key>`` sorted by name, without hidden ones; none where it is None."""
    if root is None:
        return []
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"dataset.{key}={root} is not a folder; give the one that holds a folder of images per class.")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not folders:
        raise UserError(f"dataset.{key}={root} holds no class folders; give each class a folder of its own there.")
    return folders


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


def read_images(files: Sequence[Path], channels: int | None, size: int | None) -> Tensor:
    """Return images of shape ``(N, C, H, W)`` in [0, 1].

    Raises:
        UserError: If a file is no readable image, or two files differ in channels or size and the option that would
            settle it is None.
    """
    images: list[Tensor] = []
    for file in files:
        images.append(resize(read_image(file, channels)[None], size)[0])
        now, first = images[-1].shape, images[0].shape
        for what, option, differ in (
            ("channels", "channels=1 or 3", now[0] != first[0]),
            ("pixels", "size=PIXELS", now[1:] != first[1:]),
        ):
            if differ:
                raise UserError(
                    f"{files[0]} and {file} differ in {what} ({_described(first)} and {_described(now)}); set "
                    f"dataset.{option} to bring all images to the same."
                )
    return torch.stack(images)


def read_image(file: Path, channels: int | None) -> Tensor:
    """Return one image (of several frames the first) of shape ``(C, H, W)`` in [0, 1], upright as its EXIF tag says.

    Grey files have 1 channel, all others 3; transparency is dropped. 16-bit grey keeps its depth.
    """
    try:
        with open_image(file) as image:
            upright = ImageOps.exif_transpose(image)
            deep = upright.mode.startswith("I")
            grey = deep or upright.mode in ("1", "L", "LA", "La")
            levels = np.asarray(upright if deep else upright.convert("L" if grey else "RGB"), dtype=np.float32)
            if upright.mode == "F" or levels.max() > 65535:
                raise ValueError("its pixels have no known range")
            pixels = torch.from_numpy(levels / (65535 if deep else 255))
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{file} cannot be read as an image ({error}); repair it or take it out.") from error
    pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    if channels is None or channels == len(pixels):
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    return (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)


def _described(shape: Sequence[int]) -> str:
    return f"{shape[0]} channel{'s' * (shape[0] > 1)} of {shape[2]}x{shape[1]} pixels"
