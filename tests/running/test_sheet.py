"""The heading of a cell's sheet: which cell it is, and its verdict in the words and colours of the one language."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from mibench.leaderboard.language import COLOURS, WORDS
from mibench.leaderboard.scoring import Score
from mibench.pictures import LABEL, SheetRow, layout_of
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.sheet import draw_cell
from mibench.tasks.base import Sheet

NUMBER = Score(metric="psnr", value=21.456, unit="dB", ci_low=20.0, ci_high=23.0, control=8.0)
SHEET = Sheet(["private", "recovered", "control"], [SheetRow("digit 0", [torch.ones(1, 1, 8, 8)] * 3)])


@pytest.fixture(scope="module")
def plan():
    return plan_cell(compose(["defense=bido", "seed=3"]))


@pytest.mark.parametrize("word", WORDS)
def test_a_sheet_bears_the_word_and_the_colour_of_its_verdict(plan, tmp_path, word):
    path = draw_cell(tmp_path / "sheet.png", plan, SHEET, dataclasses.replace(NUMBER, evidence=word))
    layout = layout_of(path)
    assert layout.caption == "digits, cnn, GMI, defense bido, seed 3"
    assert (layout.verdict, layout.number) == (word, "psnr 21.46 dB [20, 23], control 8")
    line = np.asarray(Image.open(path))[LABEL : 2 * LABEL + 6]
    for tone, colour in COLOURS.items():
        drawn = (line == tuple(bytes.fromhex(colour[1:]))).all(2).any()
        assert drawn == (tone == WORDS[word].tone)


def test_a_cell_without_its_headline_says_so(plan, tmp_path):
    assert layout_of(draw_cell(tmp_path / "sheet.png", plan, SHEET, None)).verdict == "not measured"
