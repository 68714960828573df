"""Picture sheets: what a person looks at first."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

    from mibench.data import InputSpec

TILE = 96
GAP = 6
LABEL = 22
MARGIN = 118
INK = (32, 32, 36)
PAPER = (250, 250, 248)


@dataclass(frozen=True)
class SheetRow:
    """One target of a sheet.

    Attributes:
        title: Name of the target.
        pictures: What stands in every column: images ``(n, C, H, W)`` in [0, 1], a text, or None for nothing.
    """

    title: str
    pictures: Sequence[Tensor | str | None]


def as_pictures(values: Tensor, spec: InputSpec) -> Tensor:
    """Return images, or spectrograms (low frequencies below), as pictures ``(n, C, H, W)`` in [0, 1]."""
    scaled = spec.to_unit(values)
    return scaled.flip(2) if spec.modality == "audio" else scaled


def noun(spec: InputSpec) -> str:
    """Return what one input is called."""
    return {"image": "image", "audio": "recording", "text": "text", "tabular": "record", "graph": "node"}[spec.modality]


def nearest(made: Tensor, private: Tensor) -> Tensor:
    """Return for every input the private one at the least squared distance."""
    return private[torch.cdist(made.flatten(1), private.flatten(1)).argmin(1)]


def draw_sheet(path: Path, headings: Sequence[str], rows: Sequence[SheetRow], caption: str) -> Path:
    """Write a PNG with one row per target and one group of tiles, or a text, per heading, and return the path.

    The file appears whole or not at all: it is written under another name and then renamed.
    """
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(14)
    columns = list(zip(*(row.pictures for row in rows), strict=True)) or [() for _ in headings]
    tiles = [max([1, *(tiles_of(cell) for cell in column)]) for column in columns]
    widths = [count * (TILE + GAP) + 3 * GAP for count in tiles]
    size = (MARGIN + sum(widths), 2 * LABEL + 2 * GAP + len(rows) * (TILE + GAP) + GAP)
    longest = int(ImageDraw.Draw(Image.new("RGB", (1, 1))).textlength(caption, font=font)) + 4 * GAP
    sheet = Image.new("RGB", (max(size[0], longest), size[1]), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * GAP, GAP), caption, fill=INK, font=font)
    left = MARGIN
    for heading, width in zip(headings, widths, strict=True):
        pen.text((left, LABEL + GAP), heading, fill=INK, font=font)
        left += width
    for number, row in enumerate(rows):
        top = 2 * LABEL + 2 * GAP + number * (TILE + GAP)
        title = wrapped(row.title, lambda text: pen.textlength(text, font=font) <= MARGIN - 3 * GAP)
        pen.multiline_text((2 * GAP, top + TILE // 2), title, fill=INK, font=font, anchor="lm")
        left = MARGIN
        for cell, width in zip(row.pictures, widths, strict=True):
            if isinstance(cell, str):
                room = width - 3 * GAP
                text = wrapped(cell, lambda text: pen.textlength(text, font=font) <= room)  # noqa: B023
                pen.multiline_text((left, top + TILE // 2), text, fill=INK, font=font, anchor="lm")
            elif cell is not None:
                for position, image in enumerate(cell):
                    sheet.paste(_tile(image), (left + position * (TILE + GAP), top))
            left += width
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    sheet.save(temporary, format="PNG")
    os.replace(temporary, path)
    return path


def tiles_of(cell: Tensor | str | None) -> int:
    """Return how many tiles wide a cell is; a text of at most six lines is as wide as it needs."""
    if cell is None:
        return 0
    return math.ceil(len(cell) / 70) + 2 if isinstance(cell, str) else len(cell)


def wrapped(title: str, fits: Callable[[str], bool]) -> str:
    r"""Return a title in lines that fit, broken at spaces and underscores; a word that does not fit is cut short.

    >>> wrapped("Silvio_Berlusconi", lambda text: len(text) <= 9)
    'Silvio\nBerlusco…'
    """
    lines: list[str] = []
    for word in title.replace("_", " ").split():
        if lines and fits(f"{lines[-1]} {word}"):
            lines[-1] += f" {word}"
            continue
        whole = word
        while not fits(word):
            word = f"{whole[: len(word) - 2]}…"
        lines.append(word)
    return "\n".join(lines)


def _tile(image: Tensor) -> Image.Image:
    from PIL import Image

    levels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    levels = levels.expand(3, -1, -1) if levels.shape[0] == 1 else levels[:3]
    picture = Image.fromarray(levels.permute(1, 2, 0).numpy())
    return picture.resize(
        (TILE, TILE), Image.Resampling.NEAREST if image.shape[-1] < TILE else Image.Resampling.LANCZOS
    )
