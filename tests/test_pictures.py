import numpy as np
import pytest
import torch
from PIL import Image

from mibench.pictures import TILE, SheetRow, draw_sheet


def test_a_sheet_shows_every_picture_at_its_place(tmp_path):
    black, white = torch.zeros(2, 1, 8, 8), torch.ones(2, 3, 8, 8)
    rows = [SheetRow("first", [black, white, None]), SheetRow("second", [white[:1], None, black])]
    path = draw_sheet(tmp_path / "deep" / "sheet.png", ["a", "b", "c"], rows, "caption")
    pixels = np.asarray(Image.open(path).convert("L"))
    assert pixels.shape[0] > 2 * TILE and pixels.shape[1] > 6 * TILE
    dark = int((pixels == 0).sum())
    assert dark == 4 * TILE * TILE, "two black tiles in each row"


def test_values_outside_the_range_are_clamped(tmp_path):
    path = draw_sheet(tmp_path / "sheet.png", ["a"], [SheetRow("x", [torch.full((1, 1, 4, 4), 3.0)])], "")
    assert (np.asarray(Image.open(path)) == 255).all(2).sum() == TILE * TILE


@pytest.mark.parametrize("earlier", [None, 0.0])
def test_a_drawing_cut_short_leaves_what_was_there(tmp_path, monkeypatch, earlier):
    """A cell killed while it writes has opened the file and filled none of it."""

    def killed(image, file, **options):
        open(file, "wb").close()
        raise KeyboardInterrupt

    path = tmp_path / "sheet.png"
    rows = [SheetRow("x", [torch.ones(1, 1, 4, 4)])]
    if earlier is not None:
        draw_sheet(path, ["a"], [SheetRow("x", [torch.full((1, 1, 4, 4), earlier)])], "")
    before = path.read_bytes() if path.exists() else None
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            draw_sheet(path, ["a"], rows, "")
    assert (path.read_bytes() if path.exists() else None) == before
    assert list(tmp_path.glob("*.png")) == [path] * (before is not None), "no half sheet is taken for one"
    draw_sheet(path, ["a"], rows, "")
    assert (np.asarray(Image.open(path)) == 255).all(2).sum() == TILE * TILE
