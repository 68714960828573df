"""Small pictures of cells, and whether they may stand on a public page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mibench.errors import UserError
from mibench.files import write_bytes, written_safely
from mibench.leaderboard.collect import parsed
from mibench.leaderboard.groups import Group
from mibench.leaderboard.sprites import is_sprite, sprite_of, sprite_path
from mibench.leaderboard.tables import decoded
from mibench.limits import open_image
from mibench.pictures import layout_of
from mibench.planning.catalogue import card_of

if TYPE_CHECKING:
    import pyarrow as pa

#: Widest picture of a study, in pixels.
WIDEST = 360

#: Of a picture sheet a study keeps the head, down to the end of this many targets.
TARGETS = 3


def may_show(config: Mapping[str, Any]) -> bool:
    """Whether pictures of a cell with this configuration may stand on a public page: what its dataset's card says.

    A dataset whose card cannot be read today may not be shown.
    """
    dataset = config.get("dataset")
    return isinstance(dataset, Mapping) and _target_may_show(str(dataset.get("_target_")))


@cache
def _target_may_show(target: str) -> bool:
    try:
        return bool(getattr(card_of({"_target_": target}), "may_show", False))
    except UserError:
        return False


def write_pictures(results: Path, folder: Path, table: pa.Table) -> None:
    """Write a small picture and a sprite per group of a study, and remove those that belong to it no more."""
    chosen = representatives(table, (path.stem for path in (results / "pictures").glob("*.png")))
    wanted = {cell for cell in chosen.values() if may_show(_config_of(table, cell))}
    for old in folder.glob("*.png"):
        if old.name.partition(".")[0] not in wanted:
            old.unlink()
    for cell in sorted(wanted):
        picture = results / "pictures" / f"{cell}.png"
        write_bytes(folder / f"{cell}.png", small(picture))
        if (sprite := sprite_of(picture)) is not None:
            with written_safely(sprite_path(folder / f"{cell}.png")) as temporary:
                sprite.save(temporary, format="PNG", optimize=True)


def representatives(table: pa.Table, available: Iterable[str]) -> dict[str, str]:
    """Return, by ``group_id``, the cell of the lowest seed among those that are available."""
    there = set(available)
    chosen: dict[str, tuple[int, str]] = {}
    rows = table.select(["group_id", "seed", "cell_id"]).group_by(["group_id", "seed", "cell_id"]).aggregate([])
    for row in rows.to_pylist():
        if row["cell_id"] in there:
            one = (row["seed"], row["cell_id"])
            chosen[row["group_id"]] = min(one, chosen.get(row["group_id"], one))
    return {group: cell for group, (_, cell) in chosen.items()}


def _config_of(table: pa.Table, cell: str) -> dict[str, Any]:
    import pyarrow.compute as pc

    first = pc.index(decoded(table, "cell_id"), cell).as_py()
    return parsed(table["config"][first].as_py())


def public_pictures(results: Path, groups: Sequence[Group]) -> dict[str, str]:
    """Return, by group, the sprite of a study as a data address, or else its small picture.

    Only of datasets that may be shown.
    """
    shown = _public(results, groups)
    found = {group: sprite_path(picture) for group, picture in shown.items()}
    chosen = {group: sprite if sprite.is_file() else shown[group] for group, sprite in found.items()}
    return {group: inlined(path.read_bytes()) for group, path in chosen.items()}


def public_sprites(results: Path, groups: Sequence[Group]) -> dict[str, bytes]:
    """Return, by group, the sprite of a study as it lies there: only of datasets that may be shown."""
    found = {group: sprite_path(picture) for group, picture in _public(results, groups).items()}
    return {group: path.read_bytes() for group, path in found.items() if path.is_file()}


def _public(results: Path, groups: Sequence[Group]) -> dict[str, Path]:
    """Return, by group, the small picture that may be shown."""
    there = _of_studies(results)
    chosen = {one.group_id: _first(one, there) for one in groups if may_show(one.config)}
    return {group: there[cell] for group, cell in chosen.items() if cell}


def _of_studies(results: Path) -> dict[str, Path]:
    """Return the small pictures of all studies, by cell; of a cell in several studies the first by name."""
    pictures = sorted((results / "studies").glob("*/*.png"), reverse=True)
    return {path.stem: path for path in pictures if not is_sprite(path)}


def local_pictures(results: Path, groups: Sequence[Group]) -> dict[str, str]:
    """Return, by group, where a picture lies, seen from the local page: one's own, or else that of a study."""
    there = {cell: f"../studies/{path.parent.name}/{path.name}" for cell, path in _of_studies(results).items()}
    there |= {path.stem: f"../pictures/{path.name}" for path in (results / "pictures").glob("*.png")}
    return {one.group_id: there[cell] for one in groups if (cell := _first(one, there))}


def picture_files(results: Path) -> dict[str, Path]:
    """Return the pictures that lie on this machine, by cell: one's own, or else the small one of a study.

    Pictures may show real people, so what names them stays with whoever ran the cells.
    """
    return _of_studies(results) | {path.stem: path for path in (results / "pictures").glob("*.png")}


def small(file: Path) -> bytes:
    """Return the head of a picture sheet as a small PNG, without what the sheet says of itself."""
    from PIL import Image

    kept, layout = io.BytesIO(), layout_of(file)
    with open_image(file) as picture:
        lower = layout.tops[TARGETS] if layout and len(layout.tops) > TARGETS else picture.height
        head = picture.convert("RGB").crop((0, 0, picture.width, lower))
    head.thumbnail((WIDEST, WIDEST), Image.Resampling.LANCZOS)
    head.quantize(16, dither=Image.Dither.NONE).save(kept, "PNG", optimize=True)
    return kept.getvalue()


def inlined(picture: bytes) -> str:
    """Return a PNG as a data address."""
    return f"data:image/png;base64,{base64.b64encode(picture).decode()}"


def _first(group: Group, there: Mapping[str, Any]) -> str:
    """Return the group's first cell by seed that has a picture."""
    return next((cell.cell_id for cell in group.cells if cell.cell_id in there), "")
