"""What a defense leaves when what protects is taken out of it stands on its card, in its docstring and in its grid."""

import ast
import re

import pytest
from test_grids import GRIDS

from mibench.planning.cards import setting_of
from mibench.planning.catalogue import conf_dir, entries
from mibench.planning.composition import build, compose
from mibench.planning.grid import plan_cells
from mibench.planning.plan import plan_cell

SWEPT = {one.name: one for one in entries("defense") if one.card.levels and not one.card.variant_of}

#: Strengths that may be 0 or null, where that is no baseline: the whole defense is off there, or little else.
OFF = {
    "ats": "no image is transformed",
    "crafter": "its steps switch it off; beta 0 hides most",
    "image_aug": "only transforms that cost nothing",
    "neg_ls": "plain training",
    "nopeek": "plain training",
    "perceptual_hash": "nothing is hashed",
    "query_monitor": "the largest cap is never reached",
    "rounding": "answers stay",
    "seccnn": "null chooses the factor",
    "sca": "a code that is not sparse, which nobody proposes",
    "score_noise": "answers stay",
    "split_noise": "plain training",
    "vrm_mixup": "plain training",
}


def documented(name):
    """The docstring of the defense's module in one line; nothing is imported."""
    source = conf_dir().parent.joinpath(*SWEPT[name].node["_target_"].split(".")[:-1]).with_suffix(".py")
    return " ".join((ast.get_docstring(ast.parse(source.read_text())) or "").split())


@pytest.mark.parametrize("name", SWEPT)
def test_docstring_and_card_name_the_same_baselines(name):
    sentences = re.split(r"(?<=[.;:]) ", documented(name))
    named = {word for one in sentences if re.search(r"\b[Bb]aselines?\b", one)
             for word in re.findall(r"``(\w+=[\w.-]+)``", one) if not word.startswith("defense=")}  # fmt: skip
    assert named == {setting_of(*one) for one in SWEPT[name].card.baselines}


@pytest.mark.parametrize("name", [name for name, one in SWEPT.items() if one.card.baselines])
def test_a_baseline_is_a_setting_that_the_defense_takes_and_not_its_default(name):
    for option, value in SWEPT[name].card.baselines:
        given = setting_of(option, value)
        block = plan_cell(compose([f"defense={name}", f"defense.{given}"])).config["defense"]
        build(block)
        assert block[option] == value != SWEPT[name].node[option], f"{given} is the defense itself"


@pytest.mark.parametrize("name", SWEPT)
def test_a_strength_of_nothing_is_a_level_a_baseline_or_no_defense(name):
    card = SWEPT[name].card
    swept = {option for option, _ in card.baselines} | ({card.strength} if 0 in card.levels else set())
    taken = []
    for value in ("0", "null"):
        try:
            build(plan_cell(compose([f"defense={name}", f"defense.{card.strength}={value}"])).config["defense"])
            taken.append(value)
        except Exception:
            continue
    assert (name in OFF) == bool(taken and card.strength not in swept), (taken, swept)


def test_every_baseline_is_met_by_a_grid():
    cells = [cell for grid in GRIDS.values() if grid.strengths for cell in grid.cells()]
    met = {(one.choices["defense"], word) for one in plan_cells(cells) if not one.reason for word in one.overrides}
    for name, one in SWEPT.items():
        for option, value in one.card.baselines:
            assert (name, f"defense.{setting_of(option, value)}") in met
    smoothed = {word for cell in GRIDS["label_smoothing"].cells() for word in cell}
    assert any(float(ast.literal_eval(word.partition("=")[2])) > 0 for word in smoothed if "defense.alpha=" in word)
    assert ("gradient_clipping", "defense.noise_multiplier=0") in met, "clipping alone"
