"""The pictures of a cell in a report: cut out of its sheet, so that each is seen at its own size."""

from __future__ import annotations

import io
from pathlib import Path

from mibench.leaderboard.pictures import inlined
from mibench.limits import open_image
from mibench.pictures import TILE, layout_of
from mibench.reporting.markup import table, text


def pictures_of(sheet: Path, title: str) -> str:
    """Return what a sheet shows: its pictures target by target, or its texts as a table; empty without a sheet.

    A sheet of an earlier version, which does not say where its pictures are, is shown whole.

    Args:
        sheet: The PNG.
        title: What it shows, in words.
    """
    if not sheet.is_file():
        return ""
    layout = layout_of(sheet)
    if layout is None:
        return f'<figure class="sheet"><img alt="{text(title)}" src="{inlined(sheet.read_bytes())}"></figure>'
    if not any(isinstance(cell, int) for row in layout.cells for cell in row):
        lines = [
            [name, *(str(cell or "") for cell in row)] for name, row in zip(layout.titles, layout.cells, strict=True)
        ]
        return table(["target", *layout.headings], lines)
    width, height = layout.tile
    small = ' class="small"' if layout.pixels < TILE else ""
    parts = []
    with open_image(sheet) as opened:
        whole = opened.convert("RGB")
    for row, name in enumerate(layout.titles):
        figures = []
        for column, heading in enumerate(layout.headings):
            cell = layout.cells[row][column]
            if isinstance(cell, str):
                figures.append(f"<figure><figcaption>{text(heading)}</figcaption><p>{text(cell)}</p></figure>")
            elif cell:
                images = []
                for position in range(cell):
                    file = io.BytesIO()
                    whole.crop(layout.box(row, column, position)).save(file, format="PNG", optimize=True)
                    which = f" {position + 1} of {cell}" if cell > 1 else ""
                    images.append(
                        f'<img{small} width="{width}" height="{height}" alt="{text(f"{heading}{which}, {name}")}" '
                        f'src="{inlined(file.getvalue())}">'
                    )
                figures.append(f"<figure><figcaption>{text(heading)}</figcaption><div>{''.join(images)}</div></figure>")
        parts.append(f'<section class="target"><h4>{text(name)}</h4>{"".join(figures)}</section>')
    return "".join(parts)
