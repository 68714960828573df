"""Sprites: the tiles of a picture sheet at the data's own size, three rows of them: private, recovered, control."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mibench.limits import open_image
from mibench.pictures import layout_of

if TYPE_CHECKING:
    from PIL import Image

#: The most tiles of one row.
MOST = 10

#: Columns of a sheet that make a sprite: private (or the nearest private), reconstruction, control.
ROWS = 3

#: Grey levels or colours that a sprite has at most.
COLOURS = 16


def sprite_path(picture: Path) -> Path:
    """Return where the sprite of a small picture lies: beside it."""
    return picture.with_name(f"{picture.stem}.tiles.png")


def is_sprite(path: Path) -> bool:
    """Whether a file is a sprite and no small picture."""
    return path.name.endswith(".tiles.png")


def sprite_of(file: Path) -> Image.Image | None:
    """Return the sprite of a sheet; None where it does not show three columns of equally many tiles.

    Of many tiles the first ones of every target are taken, so that the sprite shows as many targets as it can.

    Args:
        file: A sheet of :func:`mibench.pictures.draw_sheet`.

    Returns:
        An image of ``size * MOST`` by ``3 * size`` pixels at the most, where ``size`` is that of one input.
    """
    from PIL import Image

    layout = layout_of(file)
    counts = {cell for row in layout.cells for cell in row} if layout else set()
    if layout is None or len(layout.headings) != ROWS or len(counts) != 1:
        return None
    (tiles,) = counts
    if not isinstance(tiles, int) or not layout.pixels:
        return None
    size = layout.pixels
    order = sorted((position, row) for row in range(len(layout.cells)) for position in range(tiles))[:MOST]
    places = sorted((row, position) for position, row in order)
    sprite = Image.new("RGB", (size * len(places), size * ROWS))
    with open_image(file) as opened:
        sheet = opened.convert("RGB")
    for column in range(ROWS):
        for at, (row, position) in enumerate(places):
            tile = sheet.resize((size, size), Image.Resampling.BOX, box=layout.square(row, column, position))
            sprite.paste(tile, (at * size, column * size))
    return sprite.quantize(COLOURS, dither=Image.Dither.NONE)
