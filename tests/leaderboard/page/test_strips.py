"""Sprites cut out of sheets, and the strips that are made of them."""

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.leaderboard.page.strips import rows_of, strips
from mibench.leaderboard.pictures import small
from mibench.leaderboard.sprites import is_sprite, sprite_of, sprite_path
from mibench.pictures import SheetRow, draw_sheet, layout_of

SIZE = 16


def shade(row, group, column):
    """The grey level of one tile: no two tiles of a sheet are alike."""
    return (row * 12 + group * 4 + column + 1) / 64


def sheet_of(path, rows=5, tiles=4, columns=3):
    made = [
        SheetRow(f"digit {row}", [torch.stack([torch.full((1, SIZE, SIZE), shade(row, group, column))
                                               for column in range(tiles)]) for group in range(columns)])
        for row in range(rows)
    ]  # fmt: skip
    draw_sheet(path, ["private", "reconstruction", "control"][:columns], made, "caption")
    return path


def levels(sprite):
    """The mean grey level of every tile, by row of the sprite."""
    pixels = np.asarray(sprite.convert("L"), dtype=float) / 255
    height = pixels.shape[0] // 3
    return [[round(float(pixels[group * height : (group + 1) * height, left : left + height].mean()) * 64, 1)
             for left in range(0, pixels.shape[1], height)] for group in range(3)]  # fmt: skip


def test_a_sprite_has_the_tiles_at_the_datas_own_size_and_as_many_targets_as_it_can(tmp_path):
    sprite = sprite_of(sheet_of(tmp_path / "sheet.png"))
    assert sprite.size == (10 * SIZE, 3 * SIZE)
    shown = [(row, column) for row in range(5) for column in range(2)]
    for group, found in enumerate(levels(sprite)):
        wanted = [shade(row, group, column) * 64 for row, column in shown]
        assert found == pytest.approx(wanted, abs=3), "sixteen levels stand for thirty"
    pixels = np.asarray(sprite.convert("L"))
    assert len(np.unique(pixels[:SIZE, :SIZE])) == 1, "a tile holds no pixel of its neighbour"


def test_targets_that_do_not_divide_evenly_give_their_first_tiles(tmp_path):
    sprite = sprite_of(sheet_of(tmp_path / "sheet.png", rows=3))
    shown = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    for group, found in enumerate(levels(sprite)):
        assert found == pytest.approx([shade(row, group, column) * 64 for row, column in shown], abs=3)


def test_a_sheet_of_other_columns_of_texts_or_of_an_earlier_version_gives_none(tmp_path):
    assert sprite_of(sheet_of(tmp_path / "two.png", columns=2)) is None
    rows = [SheetRow("update 0", ["words", "other words", "third words"])]
    draw_sheet(tmp_path / "text.png", ["private", "reconstruction", "control"], rows, "caption")
    assert sprite_of(tmp_path / "text.png") is None
    with Image.open(sheet_of(tmp_path / "sheet.png")) as sheet:
        sheet.convert("RGB").save(tmp_path / "old.png")
    assert sprite_of(tmp_path / "old.png") is None


def test_a_small_picture_ends_after_three_targets_and_says_nothing_of_its_sheet(tmp_path):
    path = sheet_of(tmp_path / "sheet.png")
    layout = layout_of(path)
    with Image.open(path) as sheet, Image.open(io.BytesIO(small(path))) as found:
        assert found.text == {} and found.width == 360
        assert found.height == pytest.approx(360 * layout.tops[3] / sheet.width, abs=1)


def test_a_sprite_lies_beside_its_picture(tmp_path):
    path = sprite_path(tmp_path / "0123.png")
    assert path.name == "0123.tiles.png" and is_sprite(path) and not is_sprite(tmp_path / "0123.png")


def test_the_rows_of_a_sprite_are_its_pixels(tmp_path):
    sprite = sprite_of(sheet_of(tmp_path / "sheet.png"))
    kept = io.BytesIO()
    sprite.save(kept, format="PNG")
    whole = np.asarray(sprite.convert("RGB"))
    for group, address in enumerate(rows_of(kept.getvalue())):
        head, _, text = address.partition(",")
        data = base64.b64decode(text)
        with Image.open(io.BytesIO(data)) as row:
            row.load()
            assert head == "data:image/png;base64" and row.size == (10 * SIZE, SIZE)
            assert (np.asarray(row.convert("RGB")) == whole[group * SIZE : (group + 1) * SIZE]).all()
        assert len(data) < 10 * SIZE * SIZE // 2 + 300, "four bits a pixel"


def test_a_strip_is_the_highest_lift_of_a_task_on_undefended_models_that_may_be_shown(group, sources, tmp_path):
    kept = io.BytesIO()
    sprite_of(sheet_of(tmp_path / "sheet.png")).save(kept, format="PNG")
    faces = {"dataset.name": "lfw", "dataset._target_": "mibench.datasets.lfw.Lfw"}
    update = {"task": "instance", "access": "gradients", "unit": "dB", "control": 10.0, "half": 0.5}
    own = [
        group(lift=0.5), group("kedmi", lift=0.7), group("gmi", "bido", lift=0.79),
        group("brepmi", lift=0.75, access="labels"), group(lift=0.78, options=faces, dataset="lfw"),
        group("inverting_gradients", lift=14.0, **update), group("kedmi", lift=0.79, options={"budget.samples": 2}),
    ]  # fmt: skip
    found = strips(sources(*own, tiles={one.group_id: kept.getvalue() for one in own[:-1]}))
    assert [own[one["group"]].facts["attack"] for one in found] == ["inverting_gradients", "kedmi"]
    assert [row["label"] for row in found[1]["rows"]] == ["nearest private", "recovered", "control"]
    assert [row["recovered"] for row in found[0]["rows"]] == [False, True, False]
    assert found[0]["caption"] == [
        "Digits, recovered from ", ["one client's update", ""], " by ",
        ["Inverting Gradients", "#/method/attack/inverting_gradients"],
        ": PSNR 24 dB, 10 dB from another client's update.",
    ]  # fmt: skip
    assert strips(sources(*own)) == []
