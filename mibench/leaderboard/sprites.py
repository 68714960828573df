"""Sprites: the tiles of a picture sheet at the data's own size, three rows of them: private, recovered, control."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

#: Of a picture sheet a study keeps the head: headings and the first three targets, in pixels.
HEAD = 364

#: The most tiles of one row.
MOST = 10

#: Groups of tiles that make a sprite: private (or the nearest private), reconstruction, control.
ROWS = 3

#: What of a scaled tile's edge is mixed with the paper beside it, in pixels.
RIM = 0.6

#: Grey levels or colours that a sprite has at most.
COLOURS = 16


def sprite_path(picture: Path) -> Path:
    """Return where the sprite of a small picture lies: beside it."""
    return picture.with_name(f"{picture.stem}.tiles.png")


def is_sprite(path: Path) -> bool:
    """Whether a file is a sprite and no small picture."""
    return path.name.endswith(".tiles.png")


def sprite_of(sheet: Image.Image, size: int) -> Image.Image | None:
    """Return the sprite of a sheet; None where it does not show three groups of equally many tiles.

    Of many tiles the first ones of every target are taken, so that the sprite shows as many targets as it can.

    Args:
        sheet: A sheet of :func:`mibench.pictures.draw_sheet`, whole, or cut off below and scaled down.
        size: Pixels of one example, on both sides.

    Returns:
        An image of ``size * MOST`` by ``3 * size`` pixels at the most.
    """
    from PIL import Image

    from mibench.pictures import GAP, LABEL, MARGIN, TILE  # imports torch, which no page needs

    found = _measured(sheet)
    if found is None:
        return None
    scale, tiles, rows = found
    order = sorted([(column, row) for row in range(rows) for column in range(tiles)])[:MOST]
    places = sorted((row, column) for column, row in order)
    sprite = Image.new("RGB", (size * len(places), size * ROWS))
    for group in range(ROWS):
        for at, (row, column) in enumerate(places):
            left = MARGIN + group * (tiles * (TILE + GAP) + 3 * GAP) + column * (TILE + GAP)
            top = 2 * LABEL + 2 * GAP + row * (TILE + GAP)
            rim = 0.0 if scale == 1 else RIM
            box = (left * scale + rim, top * scale + rim, (left + TILE) * scale - rim, (top + TILE) * scale - rim)
            tile = sheet.resize((size, size), Image.Resampling.BOX, box=box)
            sprite.paste(tile, (at * size, group * size))
    return sprite.quantize(COLOURS, dither=Image.Dither.NONE)


def _measured(sheet: Image.Image) -> tuple[float, int, int] | None:
    """Return the scale of a sheet, its tiles per group and its whole rows; None where it has not three groups."""
    from mibench.pictures import GAP, MARGIN, TILE

    told = sheet.info.get("tiles")
    if told:
        counts = json.loads(told)
        if len(counts) != ROWS or len(set(counts)) > 1:
            return None
        return (1.0, counts[0], whole) if (whole := _whole(sheet.height)) else None
    for tiles in range(1, MOST + 1):
        width = MARGIN + ROWS * (tiles * (TILE + GAP) + 3 * GAP)
        scale = sheet.width / width
        expected = HEAD * scale
        if abs(sheet.height - expected) <= 1.0 and (whole := _whole(HEAD)):
            return scale, tiles, whole
    return None


def _whole(height: int) -> int:
    """Return the rows of tiles that a sheet of this height shows whole."""
    from mibench.pictures import GAP, LABEL, TILE

    return max(0, (height - 2 * LABEL - 2 * GAP) // (TILE + GAP))
