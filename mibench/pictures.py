"""Picture sheets: what a person looks at first."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError
from mibench.files import written_safely
from mibench.lettering import height_of, width_of, write
from mibench.limits import open_image, reason_of

if TYPE_CHECKING:
    from PIL import Image, ImageDraw
    from torch import Tensor

    from mibench.data import InputSpec

#: Geometry of a sheet, in pixels: the side of a tile, what lies between two, the height of a line of words above the
#: tiles, and the width of the titles left of them.
TILE = 96
GAP = 6
LABEL = 22
MARGIN = 118
INK = (32, 32, 36)
PAPER = (250, 250, 248)

#: The name of the PNG's text chunk that holds :class:`Layout` as JSON.
CHUNK = "mibench"


@dataclass(frozen=True)
class SheetRow:
    """One target of a sheet.

    Attributes:
        title: Name of the target.
        pictures: What stands in every column: images ``(n, C, H, W)`` in [0, 1], a text, or None for nothing.
    """

    title: str
    pictures: Sequence[Tensor | str | None]


@dataclass(frozen=True)
class Said:
    """The second line of a sheet: a verdict and the number behind it.

    Attributes:
        mark: The verdict's mark, one character, which is drawn.
        word: Its word.
        colour: Colour of both, hexadecimal RGB.
        number: The number with its interval and control, in words.
    """

    mark: str
    word: str
    colour: str
    number: str


@dataclass(frozen=True)
class Layout:
    """Where everything stands on a sheet, in pixels; the sheet's file holds it, and :func:`layout_of` reads it.

    Attributes:
        caption: The first line: which cell this is.
        verdict: The word of the second line; empty where there is none.
        number: The number beside it.
        headings: Heading of every column.
        lefts: Left edge of every column.
        titles: Title of every row.
        tops: Upper edge of every row.
        heights: Height of every row.
        cells: By row and column the number of tiles, or the text, or None.
        pixels: Longer side of one input in its own pixels, 0 where there is no picture.
        tile: Width and height of one picture on the sheet, in the middle of a square of ``TILE`` pixels.
    """

    caption: str
    verdict: str
    number: str
    headings: Sequence[str]
    lefts: Sequence[int]
    titles: Sequence[str]
    tops: Sequence[int]
    heights: Sequence[int]
    cells: Sequence[Sequence[int | str | None]]
    pixels: int
    tile: Sequence[int] = (TILE, TILE)

    def fits(self, width: int, height: int) -> bool:
        """Return whether what the sheet says of itself can be true of a picture of this size."""
        places = (len(self.headings), len(self.titles))
        lengths = (len(self.lefts), len(self.tops)) == places == (len(self.cells[0]) if self.cells else places[0],
                                                                  len(self.heights))  # fmt: skip
        numbers = [*self.lefts, *self.tops, *self.heights, *self.tile, self.pixels]
        whole = all(isinstance(one, int) and 0 <= one <= max(width, height) for one in numbers)
        return lengths and whole and len(self.tile) == 2 and all(
            len(row) == len(self.headings)
            and all(cell is None or isinstance(cell, str) or 0 <= cell <= width // TILE for cell in row)
            for row in self.cells
        )  # fmt: skip

    def square(self, row: int, column: int, position: int) -> tuple[int, int, int, int]:
        """Return left, upper, right and lower edge of the square in which a picture stands."""
        left, top = self.lefts[column] + position * (TILE + GAP), self.tops[row]
        return left, top, left + TILE, top + TILE

    def box(self, row: int, column: int, position: int) -> tuple[int, int, int, int]:
        """Return left, upper, right and lower edge of a picture."""
        (width, height), (left, top, *_) = self.tile, self.square(row, column, position)
        left, top = left + (TILE - width) // 2, top + (TILE - height) // 2
        return left, top, left + width, top + height


def fitted(height: int, width: int) -> tuple[int, int]:
    """Return width and height of a picture that is scaled so that its longer side is a tile's."""
    longer = max(height, width)
    return max(1, round(TILE * width / longer)), max(1, round(TILE * height / longer))


def layout_of(path: Path) -> Layout | None:
    """Return where everything stands on a sheet; None for one of an earlier version, which does not say so."""
    with open_image(path, decode=False) as sheet:
        size = sheet.size
        try:
            text = getattr(sheet, "text", {}).get(CHUNK)
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{path} cannot be read as an image ({reason_of(error)}).") from error
    try:
        said: dict[str, Any] = json.loads(text or "null")
        layout = Layout(**said)
        return layout if layout.fits(*size) else None
    except (TypeError, ValueError, RecursionError, AttributeError):
        return None


def as_pictures(values: Tensor, spec: InputSpec) -> Tensor:
    """Return images, or spectrograms (low frequencies below), as pictures ``(n, C, H, W)`` in [0, 1]."""
    scaled = spec.to_unit(values)
    return scaled.flip(2) if spec.modality == "audio" else scaled


def noun(spec: InputSpec) -> str:
    """Return what one input is called."""
    return {"image": "image", "audio": "recording", "text": "text", "tabular": "record", "graph": "node"}[spec.modality]


def nearest(made: Tensor, private: Tensor) -> Tensor:
    """Return for every input the private one at the least squared distance."""
    import torch

    return private[torch.cdist(made.flatten(1), private.flatten(1)).argmin(1)]


def draw_sheet(
    path: Path, headings: Sequence[str], rows: Sequence[SheetRow], caption: str, said: Said | None = None
) -> Path:
    """Write a PNG with one row per target and one group of tiles, or a text, per heading, and return the path.

    Above them stand the caption, the verdict where there is one, and the headings. A row without pictures is as high
    as its lines. The file appears whole or not at all: it is written under another name and then renamed.

    Args:
        path: The file.
        headings: Heading of every column.
        rows: The targets.
        caption: The first line.
        said: The second line.
    """
    from PIL import Image, ImageDraw
    from PIL.PngImagePlugin import PngInfo

    columns = list(zip(*(row.pictures for row in rows), strict=True)) or [() for _ in headings]
    tiles = [max([1, *(tiles_of(cell) for cell in column)]) for column in columns]
    widths = [count * (TILE + GAP) + 3 * GAP for count in tiles]
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))

    def length(text: str) -> int:
        return math.ceil(width_of(ruler, text))

    def in_lines(text: str, width: int) -> str:
        return wrapped(text, lambda line: width_of(ruler, line) <= width - 3 * GAP)

    def row_height(title: str, cells: Sequence[Tensor | str | None]) -> int:
        texts = [title, *(cell for cell in cells if isinstance(cell, str))]
        lines = max(height_of(ruler, text) for text in texts)
        return max(lines + GAP, TILE * any(not isinstance(cell, str | None) for cell in cells))

    widths = [max(width, length(heading) + 3 * GAP) for width, heading in zip(widths, headings, strict=True)]
    titles = [in_lines(row.title, MARGIN) for row in rows]
    cells = [
        [
            in_lines(cell, width) if isinstance(cell, str) else cell
            for cell, width in zip(row.pictures, widths, strict=True)
        ]
        for row in rows
    ]
    heights = [row_height(title, line) for title, line in zip(titles, cells, strict=True)]
    shapes = {tuple(cell.shape[-2:]) for row in cells for cell in row if not isinstance(cell, str | None)}
    first = (3 if said else 2) * LABEL + 2 * GAP
    layout = Layout(
        caption=caption,
        verdict=said.word if said else "",
        number=said.number if said else "",
        headings=list(headings),
        lefts=[MARGIN + sum(widths[:place]) for place in range(len(widths))],
        titles=[row.title for row in rows],
        tops=[first + sum(heights[:place]) + place * GAP for place in range(len(heights))],
        heights=heights,
        cells=[[cell if isinstance(cell, str | None) else len(cell) for cell in row.pictures] for row in rows],
        pixels=max((max(shape) for shape in shapes), default=0),
        tile=list(fitted(*shapes.pop()) if len(shapes) == 1 else (TILE, TILE)),
    )
    longest = max(length(caption), length(f"{said.word}   {said.number}") + LABEL if said else 0) + 4 * GAP
    size = (max(MARGIN + sum(widths), longest), first + GAP + sum(heights) + len(rows) * GAP)
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    write(pen, (2 * GAP, GAP), caption, INK)
    if said:
        right = 2 * GAP + (LABEL if said.mark else 0)
        draw_mark(sheet, said.mark, 2 * GAP, LABEL + GAP + 1, said.colour)
        write(pen, (right, LABEL + GAP), said.word, said.colour)
        write(pen, (right + length(f"{said.word}   "), LABEL + GAP), said.number, INK)
    for heading, left in zip(headings, layout.lefts, strict=True):
        write(pen, (left, first - LABEL - GAP), heading, INK)
    for row, (title, line, top, height) in enumerate(zip(titles, cells, layout.tops, heights, strict=True)):
        middle = top + height // 2
        write(pen, (2 * GAP, middle), title, INK, middle=True)
        for column, cell in enumerate(line):
            if isinstance(cell, str):
                write(pen, (layout.lefts[column], middle), cell, INK, middle=True)
            elif cell is not None:
                for position, image in enumerate(cell):
                    tile, (left, top, *_) = _tile(image), layout.square(row, column, position)
                    sheet.paste(tile, (left + (TILE - tile.width) // 2, top + (TILE - tile.height) // 2))
    info = PngInfo()
    info.add_text(CHUNK, json.dumps(asdict(layout)))
    with written_safely(path) as temporary:
        sheet.save(temporary, format="PNG", pnginfo=info)
    return path


def draw_mark(sheet: Image.Image, mark: str, left: int, top: int, colour: str) -> None:
    """Draw a verdict's mark, which the font does not have, as high as a line's letters."""
    from PIL import Image, ImageDraw

    fine, side = 4, 14  # drawn four times as large, for smooth edges
    drawn = Image.new("L", (fine * side, fine * side), 0)
    _shape(ImageDraw.Draw(drawn), mark, fine * side)
    drawn = drawn.reduce(fine)
    sheet.paste(Image.new("RGB", drawn.size, colour), (left, top), drawn)


def _shape(pen: ImageDraw.ImageDraw, mark: str, side: int) -> None:
    box, middle, line = (4, 4, side - 5, side - 5), side // 2, side // 9
    if mark == "●":
        pen.ellipse(box, fill=255)
    elif mark == "○":
        pen.ellipse(box, outline=255, width=line)
    elif mark == "◐":
        pen.ellipse(box, outline=255, width=line)
        pen.pieslice(box, 90, 270, fill=255)
    elif mark == "◌":
        for start in range(0, 360, 45):
            pen.arc(box, start, start + 24, fill=255, width=line)
    elif mark == "·":
        pen.ellipse((middle - line, middle - line, middle + line, middle + line), fill=255)
    elif mark == "-":
        pen.rectangle((side // 4, middle - 4, 3 * side // 4, middle + 3), fill=255)  # two whole pixels high


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
    import torch
    from PIL import Image

    levels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    levels = levels.expand(3, -1, -1) if levels.shape[0] == 1 else levels[:3]
    picture = Image.fromarray(levels.permute(1, 2, 0).numpy())
    larger = max(image.shape[-2:]) < TILE
    return picture.resize(fitted(*image.shape[-2:]), Image.Resampling.NEAREST if larger else Image.Resampling.LANCZOS)
