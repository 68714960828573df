"""Picture sheets: what a person looks at first."""

from __future__ import annotations

import json
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

    A row without pictures is as high as its lines. A sheet of tiles alone says in the PNG's text ``tiles`` how many
    stand below each heading, as a JSON list.
    The file appears whole or not at all: it is written under another name and then renamed.
    """
    from PIL import Image, ImageDraw, ImageFont
    from PIL.PngImagePlugin import PngInfo

    font = ImageFont.load_default(14)
    columns = list(zip(*(row.pictures for row in rows), strict=True)) or [() for _ in headings]
    tiles = [max([1, *(tiles_of(cell) for cell in column)]) for column in columns]
    widths = [count * (TILE + GAP) + 3 * GAP for count in tiles]
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def in_lines(text: str, width: int) -> str:
        return wrapped(text, lambda line: ruler.textlength(line, font=font) <= width - 3 * GAP)

    def height_of(title: str, cells: Sequence[Tensor | str | None]) -> int:
        texts = [title, *(cell for cell in cells if isinstance(cell, str))]
        lines = max(math.ceil(ruler.multiline_textbbox((0, 0), text, font=font)[3]) for text in texts)
        return max(lines + GAP, TILE * any(isinstance(cell, Tensor) for cell in cells))

    titles = [in_lines(row.title, MARGIN) for row in rows]
    cells = [
        [
            in_lines(cell, width) if isinstance(cell, str) else cell
            for cell, width in zip(row.pictures, widths, strict=True)
        ]
        for row in rows
    ]
    heights = [height_of(title, line) for title, line in zip(titles, cells, strict=True)]
    longest = int(ruler.textlength(caption, font=font)) + 4 * GAP
    size = (max(MARGIN + sum(widths), longest), 2 * LABEL + 3 * GAP + sum(heights) + len(rows) * GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((2 * GAP, GAP), caption, fill=INK, font=font)
    left = MARGIN
    for heading, width in zip(headings, widths, strict=True):
        pen.text((left, LABEL + GAP), heading, fill=INK, font=font)
        left += width
    top = 2 * LABEL + 2 * GAP
    for title, line, height in zip(titles, cells, heights, strict=True):
        middle, left = top + height // 2, MARGIN
        pen.multiline_text((2 * GAP, middle), title, fill=INK, font=font, anchor="lm")
        for cell, width in zip(line, widths, strict=True):
            if isinstance(cell, str):
                pen.multiline_text((left, middle), cell, fill=INK, font=font, anchor="lm")
            elif cell is not None:
                for position, image in enumerate(cell):
                    sheet.paste(_tile(image), (left + position * (TILE + GAP), top))
            left += width
        top += height + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp")
    told = PngInfo()
    if all(isinstance(cell, Tensor) for row in rows for cell in row.pictures):
        told.add_text("tiles", json.dumps(tiles))
    sheet.save(temporary, format="PNG", pnginfo=told)
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
