import numpy as np
import pytest
import torch
from PIL import Image

from mibench.leaderboard.language import COLOURS, WORDS
from mibench.pictures import LABEL, TILE, Said, SheetRow, draw_sheet, layout_of


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


def test_a_row_of_texts_is_as_high_as_its_lines_and_one_with_a_picture_as_high_as_that(tmp_path):
    def height(*cells):
        headings = [f"column {number}" for number in range(len(cells))]
        rows = [SheetRow(f"row {number}", list(cells)) for number in range(5)]
        return Image.open(draw_sheet(tmp_path / "sheet.png", headings, rows, "texts")).height / 5

    long = "the film is a small wonder of patience " * 5
    one, several, picture = height("a text", "another"), height(long, "another"), height(long, torch.ones(1, 1, 8, 8))
    assert one < TILE / 2 and one + 20 < several < picture


def test_no_line_of_a_text_leaves_its_row(tmp_path):
    """Rows of two long texts show as much ink as the same texts do in sheets of their own."""

    def ink(*titles):
        rows = [SheetRow("", [f"{title} " + "gypsy quay " * 20]) for title in titles]
        sheet = np.asarray(Image.open(draw_sheet(tmp_path / "sheet.png", [""], rows, "")).convert("L"), dtype=float)
        return float((sheet.max() - sheet).sum())

    assert ink("one", "two") == pytest.approx(ink("one") + ink("two"), rel=1e-3)


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


def test_a_sheet_says_where_its_pictures_are_and_what_the_verdict_is(tmp_path):
    shades = [torch.full((2, 1, 8, 8), shade) for shade in (0.0, 0.25, 0.5)]
    rows = [SheetRow("first", shades), SheetRow("second", [shades[0], "a text", None])]
    said = Said("●", "leak", COLOURS["leak"], "psnr 9 dB, control 1")
    path = draw_sheet(tmp_path / "sheet.png", ["private", "recovered", "control"], rows, "digits, cnn", said)
    layout = layout_of(path)
    assert (layout.caption, layout.verdict, layout.number) == ("digits, cnn", "leak", "psnr 9 dB, control 1")
    assert [list(row) for row in layout.cells] == [[2, 2, 2], [2, "a text", None]] and layout.pixels == 8
    sheet = Image.open(path)
    for column, shade in enumerate((0, 64, 128)):
        for position in range(2):
            tile = np.asarray(sheet.crop(layout.box(0, column, position)))
            assert tile.shape[:2] == (TILE, TILE) and (tile == shade).all()
    assert layout.tops[0] == 3 * LABEL + 12
    plain = draw_sheet(tmp_path / "plain.png", ["a"], [SheetRow("x", [shades[0]])], "samples")
    assert layout_of(plain).tops[0] == 2 * LABEL + 12 and layout_of(plain).verdict == ""
    Image.new("RGB", (9, 9)).save(tmp_path / "old.png")
    assert layout_of(tmp_path / "old.png") is None


@pytest.mark.parametrize("word", WORDS.values(), ids=list(WORDS))
def test_a_mark_is_drawn_in_the_colour_of_its_tone(tmp_path, word):
    colour = tuple(bytes.fromhex(COLOURS[word.tone][1:]))

    def drawn(mark):
        said = Said(mark, "", COLOURS[word.tone], "")
        path = draw_sheet(tmp_path / "sheet.png", ["a"], [SheetRow("x", [torch.ones(1, 1, 4, 4)])], "", said)
        return np.asarray(Image.open(path))[LABEL : 2 * LABEL]

    own = drawn(word.mark)
    assert (own == colour).all(2).any()
    others = [drawn(other.mark) for other in WORDS.values() if other.mark != word.mark]
    assert not any(np.array_equal(own, other) for other in others)


def test_a_heading_wider_than_its_tiles_makes_room(tmp_path):
    ones = torch.ones(1, 1, 8, 8)
    narrow = layout_of(draw_sheet(tmp_path / "a.png", ["a", "b"], [SheetRow("x", [ones, ones])], ""))
    wide = layout_of(
        draw_sheet(tmp_path / "b.png", ["a heading that is far too long", "b"], [SheetRow("x", [ones, ones])], "")
    )
    assert wide.lefts[1] > narrow.lefts[1] and wide.lefts[0] == narrow.lefts[0]


@pytest.mark.parametrize(("shape", "size"), [((20, 60), (96, 32)), ((60, 20), (32, 96)), ((8, 8), (96, 96)),
                                              ((300, 200), (64, 96))])  # fmt: skip
def test_a_picture_keeps_its_proportions(shape, size, tmp_path):
    path = draw_sheet(tmp_path / "sheet.png", ["a"], [SheetRow("x", [torch.zeros(2, 3, *shape)])], "")
    layout, sheet = layout_of(path), Image.open(path)
    assert layout.pixels == max(shape)
    for position in range(2):
        tile = sheet.crop(layout.box(0, 0, position))
        assert tile.size == size and not np.asarray(tile).any(), "black everywhere"
        left, top, right, bottom = layout.square(0, 0, position)
        around = np.asarray(sheet.crop((left, top, right, bottom)))
        assert around.shape[:2] == (TILE, TILE) and (around == 0).all(2).sum() == size[0] * size[1]


def test_pictures_of_several_shapes_each_keep_theirs(tmp_path):
    row = SheetRow("x", [torch.zeros(1, 1, 8, 16), torch.zeros(1, 1, 8, 8)])
    path = draw_sheet(tmp_path / "sheet.png", ["a", "b"], [row], "")
    assert (np.asarray(Image.open(path)) == 0).all(2).sum() == TILE * TILE * 3 // 2
    assert list(layout_of(path).tile) == [TILE, TILE]
