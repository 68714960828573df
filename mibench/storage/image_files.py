"""Folders of class folders, by the names of their files alone: classes, their images, and what is passed over.

They are read as torchvision's ``ImageFolder`` reads them: classes are the folders sorted by name, and images of a class
lie at any depth below its folder, links included. Hidden files and folders are passed over.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mibench.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".pgm", ".ppm", ".webp", ".gif", ".tif", ".tiff")

#: Names of folders that are parts of a data set, not classes; the first ones hold what a model is trained on.
TRAINING = ("train", "training", "trainset")
PARTS = (*TRAINING, "val", "valid", "validation", "dev", "test", "testing", "testset", "eval", "holdout")


@dataclass
class PassedOver:
    """The files below class folders that are not read, counted.

    Attributes:
        endings: How many have an ending that is none of :data:`ENDINGS`, by ending.
        hidden: How many are hidden, or lie in a hidden folder of a class.
    """

    endings: Counter[str] = field(default_factory=Counter)
    hidden: int = 0

    def __str__(self) -> str:
        """A sentence; empty where nothing was passed over."""
        reasons = []
        if count := self.endings.total():
            named = ", ".join(ending or "none" for ending, _ in self.endings.most_common(5))
            reasons.append(f"{count} that are no images by their ending ({named})")
        if self.hidden:
            reasons.append(f"{self.hidden} hidden")
        total = self.endings.total() + self.hidden
        return f"{total} files below the class folders were passed over: {' and '.join(reasons)}." if total else ""


def files_below(folder: Path) -> Iterator[Path]:
    """Yield all files at any depth, links to files and folders followed, each folder once."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        yield from (file for name in sorted(files) if (file := Path(place, name)).is_file())


def class_folders(key: str, root: Path | str | None) -> list[Path]:
    """Return the class folders of ``dataset.<key>`` sorted by name, without hidden ones; none where it is None.

    Raises:
        UserError: If it is no folder, holds none, or holds the parts of a data set (``train`` and ``val``) instead.
    """
    if root is None:
        return []
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"dataset.{key}={root} is not a folder; give the one that holds a folder of images per class.")
    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not folders:
        raise UserError(f"dataset.{key}={root} holds no class folders; give each class a folder of its own there.")
    parts = {folder.name.casefold(): folder for folder in folders if folder.name.casefold() in PARTS}
    trained = next((parts[name] for name in TRAINING if name in parts), None)
    if trained is not None and len(parts) > 1 and subfolders(trained):
        names = " and ".join(f"{folder.name}/" for folder in parts.values())
        raise UserError(
            f"dataset.{key}={root} holds {names}, which are parts of a data set and no classes; give the part that the "
            f"model was trained on, such as dataset.{key}={trained}."
        )
    return folders


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, without hidden ones."""
    return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."]


def images_of(folder: Path, passed: PassedOver | None = None) -> list[Path]:
    """Return the images of a class folder and of its sub-folders in the order of torchvision's ``ImageFolder``.

    Args:
        folder: The class folder.
        passed: Where the files that are passed over are counted.
    """
    passed = PassedOver() if passed is None else passed
    images = []
    for file in sorted(files_below(folder), key=lambda file: (str(file.parent), file.name)):
        if _hidden(file, folder):
            passed.hidden += 1
        elif file.suffix.lower() in ENDINGS:
            images.append(file)
        else:
            passed.endings[file.suffix.lower()] += 1
    return images


def holds_image(folder: Path) -> bool:
    """Return whether a class folder holds an image; the first one ends the search."""
    return any(file.suffix.lower() in ENDINGS and not _hidden(file, folder) for file in files_below(folder))


def _hidden(file: Path, folder: Path) -> bool:
    return any(part[0] == "." for part in file.relative_to(folder).parts)


def too_few(folder: Path) -> UserError:
    """Return the error of a class folder with fewer than two images."""
    return UserError(
        f"Class folder {folder} holds fewer than 2 images ({', '.join(ENDINGS)}), one to train on and one to test on: "
        "add more or take the folder out."
    )


def refuse_without_images(key: str, root: Path) -> None:
    """Raise where a folder of ``dataset.<key>`` holds no image, before anything below it is read.

    A root that is far too high (a home, ``/usr``) is noticed by its first folders.
    """
    for folder in class_folders(key, root):
        if not holds_image(folder):
            raise UserError(
                f"dataset.{key}={root} holds the folder '{folder.name}', in which no image lies "
                f"({', '.join(ENDINGS)}); give the folder that holds one folder of images per class, or take "
                f"'{folder.name}' out of it."
            )


def nested(folders: Sequence[Path]) -> bool:
    """Return whether an image of a class lies deeper than in the class folder itself."""
    return any(holds_image(below) for folder in folders for below in subfolders(folder))
