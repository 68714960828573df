"""Names in any script: in a font that has their letters, or spelled in plain letters, never as boxes."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from mibench import lettering
from mibench.lettering import has, is_plain, own_font, runs, spelled, width_of
from mibench.pictures import SheetRow, draw_sheet

NAMES = [
    "José Müller",
    "Łukasz Żak",
    "Ольга",
    "Νίκος",
    "中村 太郎",
    "김철수",
    "محمد علي",
    "שרה",
    "अमित",
    "สมชาย",
    "Ngọc",
    "እስያ",
]


@pytest.fixture(params=["with fonts", "without"])
def fonts(request, monkeypatch):
    if request.param == "without":
        monkeypatch.setattr(lettering, "further_fonts", lambda: ())


@pytest.mark.parametrize("name", NAMES)
def test_no_letter_is_drawn_as_a_box(name, fonts):
    parts = runs(name)
    assert all(has(font, letter) for font, text in parts for letter in text)
    assert "".join(text for _, text in parts).strip()


def test_a_word_is_in_one_font_and_plain_text_in_pillows_own():
    assert runs("plain text") == [(own_font(), "plain text")]
    letters = [text for _, text in runs("José")]
    assert letters in (["José"], ["Jose"])
    assert is_plain("a…b±c\nd") and not is_plain("é")


def test_letters_that_no_font_has_are_spelled(monkeypatch):
    monkeypatch.setattr(lettering, "further_fonts", lambda: ())
    assert "".join(text for _, text in runs("José Ångström")) == "Jose Angstrom"
    assert spelled("é") == "e" and spelled("中") in ("Zhong", "U+4E2D ")
    assert spelled("\U0010fffd") == "U+10FFFD "


@pytest.mark.parametrize("name", ["José Müller 中村", "Ольга Петровна Александровна"])
def test_names_stand_on_the_sheet_and_lines_fit(name, tmp_path, fonts):
    def ink(title):
        row = SheetRow(title, [torch.ones(1, 1, 8, 8), f"{title} says {title}"])
        sheet = Image.open(draw_sheet(tmp_path / "sheet.png", [title, "text"], [row], title)).convert("L")
        return float((np.asarray(sheet) < 128).sum())

    assert ink(name) > ink("") + 100
    ruler = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    assert width_of(ruler, name) > width_of(ruler, name[:5]) > 0


def test_a_font_that_cannot_be_opened_is_passed_over(tmp_path, monkeypatch):
    (tmp_path / "broken.ttf").write_text("no font")
    monkeypatch.setattr(lettering, "font_files", lambda: [tmp_path / "broken.ttf", tmp_path / "absent.ttf"])
    assert lettering.further_fonts.__wrapped__() == ()
