"""Image files as tensors in [0, 1]: depth, channels, orientation, and what has to be said of a whole set of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from mibench.datasets.base import resize
from mibench.errors import UserError
from mibench.limits import open_image
from mibench.storage.progress import progress

#: The EXIF tag of how a picture is to be turned, and its values that say: as it is.
ORIENTATION, UPRIGHT = 0x0112, (0, 1)

#: The TIFF tags of bits per level and of their kind, and the kind of whole numbers with a sign.
BITS, KIND, SIGNED = 258, 339, 2

#: Where the brightest pixel of a set is at most this, its levels have probably another range than their files could.
DARK = 0.5

#: What can be done about levels of no known range, of any file and where a data set has the option.
CONVERT = "convert it to 8 or 16 bits without a sign"
OR_WHITE = ", or set dataset.white to the level that is white"


@dataclass(frozen=True)
class Picture:
    """One image as it was read.

    Attributes:
        pixels: Shape ``(C, H, W)``, in [0, 1].
        white: The level of the file that became 1.
        oriented: Whether its EXIF tag says that it is to be turned or mirrored.
        frames: Images in the file, of which the first is read.
    """

    pixels: Tensor
    white: float
    oriented: bool
    frames: int


def read_picture(
    file: Path, channels: int | None, upright: bool = True, white: float | None = None, remedy: str = CONVERT
) -> Picture:
    """Return one image in [0, 1].

    Grey files have 1 channel, all others 3; transparency is dropped. Grey of 16 bits keeps its depth.

    Args:
        file: The file.
        channels: 1 (grey) or 3 (colour); None keeps those of the file.
        upright: Whether it is turned as its EXIF tag says.
        white: The level that becomes 1; None takes 255, and 65535 of more than 8 bits.
        remedy: What to do about levels of no known range.

    Raises:
        UserError: If it is no readable image, or its levels have no known range.
    """
    try:
        with open_image(file) as image:
            oriented = image.getexif().get(ORIENTATION, 1) not in UPRIGHT
            frames = int(getattr(image, "n_frames", 1))
            signed = _signed_16(image)
            turned = ImageOps.exif_transpose(image) if upright else image
            deep = turned.mode[0] in "IF"
            grey = deep or turned.mode in ("1", "L", "LA", "La")
            levels = np.asarray(turned if deep else turned.convert("L" if grey else "RGB"), dtype=np.float32)
            kind = turned.mode
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{file} cannot be read as an image ({error}); repair it or take it out.") from error
    reason = ""
    if not np.isfinite(levels).all():
        raise UserError(f"{file} holds pixels that are NaN or infinite; repair it or take it out.")
    if white is None and (kind == "F" or signed):
        reason = "numbers with a fraction" if kind == "F" else "16 bits with a sign"
    white = white or (65535.0 if deep else 255.0)
    if not reason and (levels.min() < 0 or levels.max() > white):
        reason = f"levels from {levels.min():g} to {levels.max():g}"
        reason += f", outside 0 to {white:g}" if white not in (255, 65535) else ""
    if reason:
        remedy = CONVERT if levels.min() < 0 else remedy
        raise UserError(f"{file} holds {reason}, so its pixels have no known range; {remedy}.")
    pixels = torch.from_numpy(levels / np.float32(white))
    pixels = pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1)
    return Picture(_with_channels(pixels, channels), white, oriented, frames)


def read_image(file: Path, channels: int | None) -> Tensor:
    """Return one image (of several frames the first) of shape ``(C, H, W)`` in [0, 1], upright as its EXIF tag says.

    Raises:
        UserError: If it is no readable image, or its levels have no known range.
    """
    return read_picture(file, channels).pixels


def _signed_16(image: Image.Image) -> bool:
    """Return whether a TIFF file says that its levels are whole numbers of 16 bits with a sign."""
    tags: Any = getattr(image, "tag_v2", {})
    bits, kind = tags.get(BITS, ()), tags.get(KIND, ())
    return 16 in _several(bits) and SIGNED in _several(kind)


def _several(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _with_channels(pixels: Tensor, channels: int | None) -> Tensor:
    if channels is None or channels == len(pixels):
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    return (pixels * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0, keepdim=True)


@dataclass(frozen=True)
class Reading:
    """A set of images, and what of their files a reader of numbers must know.

    Attributes:
        x: Images of shape ``(N, C, H, W)`` in [0, 1].
        sentences: What was read otherwise than a training code may have read it.
        doubts: What is probably wrong.
    """

    x: Tensor
    sentences: tuple[str, ...]
    doubts: tuple[str, ...]


def read_set(
    files: Sequence[Path], channels: int | None, size: int | None, upright: bool = True, white: float | None = None
) -> Reading:
    """Read images, and say what is remarkable of them together.

    Args:
        files: The files.
        channels: As in :func:`read_picture`.
        size: Pixels per side of the square that every image is resized to; None keeps theirs.
        upright: As in :func:`read_picture`.
        white: Likewise.

    Raises:
        UserError: If a file is no readable image, or two files differ in channels or size and the option that would
            settle it is None.
    """
    images: list[Tensor] = []
    brightest, oriented, animated, full = 0.0, 0, 0, 0.0
    for file in progress(files, "images", total=len(files)):
        picture = read_picture(file, channels, upright, white, CONVERT + OR_WHITE)
        brightest, full = max(brightest, float(picture.pixels.max())), max(full, picture.white)
        oriented, animated = oriented + picture.oriented, animated + (picture.frames > 1)
        images.append(resize(picture.pixels[None], size)[0])
        _refuse_another_shape(files[0], images[0], file, images[-1])
    sentences, doubts = [], []
    if oriented:
        how = "turned as it says" if upright else "read as stored"
        sentences.append(
            f"{oriented} of {len(files)} pictures carry an EXIF orientation and were {how} "
            f"(dataset.upright={str(upright).lower()}); torchvision's ImageFolder reads them as stored, so set this as "
            "the model's training did."
        )
    if animated:
        sentences.append(f"{animated} of {len(files)} files hold several frames, of which the first one was read.")
    if files and brightest <= DARK:
        level = brightest * full
        likely = 2 ** max(1, math.ceil(math.log2(round(level) + 1))) - 1
        doubts.append(
            f"The brightest pixel of {len(files)} pictures is {brightest:.2g} of white (level {level:.0f} of "
            f"{full:.0f}), as of 12 bits stored in 16; if the model's training read them brighter, set "
            f"dataset.white to the level that is white ({likely}?)."
        )
    return Reading(torch.stack(images), tuple(sentences), tuple(doubts))


def _refuse_another_shape(first_file: Path, first: Tensor, file: Path, now: Tensor) -> None:
    """Raise where an image has other channels or another size than the first one."""
    for what, option, differ in (
        ("channels", "channels=1 or 3", now.shape[0] != first.shape[0]),
        ("pixels", "size=PIXELS", now.shape[1:] != first.shape[1:]),
    ):
        if differ:
            raise UserError(
                f"{first_file} and {file} differ in {what} ({_described(first.shape)} and {_described(now.shape)}); "
                f"set dataset.{option} to bring all images to the same."
            )


def _described(shape: Sequence[int]) -> str:
    return f"{shape[0]} channel{'s' * (shape[0] > 1)} of {shape[2]}x{shape[1]} pixels"
