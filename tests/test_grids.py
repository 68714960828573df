"""Every cell of the published protocols can be composed, with options that exist and have the published values."""

import pytest
import yaml

from mibench.planning.catalogue import conf_dir, entries, entry
from mibench.planning.composition import compose
from mibench.planning.grid import plan_cells, read_grid
from mibench.planning.plan import plan_cell, refuse_incompatible
from mibench.running.stage import blueprint

GRIDS = {file.stem: read_grid(yaml.safe_load(file.read_text())) for file in (conf_dir() / "grid").glob("*.yaml")}
CELLS = [cell for grid in GRIDS.values() for cell in grid.cells()]


def showing_every_word(cells):
    """Return cells among which every word of any cell stands, always the one with the most words not yet seen."""
    left, chosen = {word for cell in cells for word in cell}, []
    while left:
        chosen.append(max(cells, key=lambda cell: len(left & {*cell})))
        left -= {*chosen[-1]}
    return chosen


RUNNABLE = [one.overrides for one in plan_cells(CELLS) if not one.reason]
SHOWN = showing_every_word(RUNNABLE)


def test_every_cell_of_every_grid_is_judged_and_a_published_protocol_has_none_that_cannot_be_run():
    published = {cell for grid in GRIDS.values() if grid.fixed and not grid.strengths for cell in grid.cells()}
    assert len(CELLS) > 1000 and len(published) > 900
    assert not published - {*RUNNABLE}
    assert {word for cell in SHOWN for word in cell} == {word for cell in RUNNABLE for word in cell}


@pytest.mark.parametrize("cell", SHOWN, ids=lambda cell: "-".join(cell[-3:]))
def test_a_cell_composes_with_options_that_exist(cell):
    plan = plan_cell(compose(cell))
    refuse_incompatible(plan)
    for axis in ("dataset", "attack", "defense", "setting", "prior"):
        plan.part(axis)
    blueprint(plan.config["target"])
    judges = [entry("target", one).name for one in plan.config["evaluation"]["models"]]
    assert len({*judges} - {plan.config["target"]["name"]}) >= plan.config["evaluation"]["count"]


def test_the_published_settings_are_those_of_the_papers():
    low, high = (plan_cell(compose(GRIDS[name].cells()[0])).config for name in ("celeba64_lowres", "celeba224_highres"))
    for config in (low, high):
        assert (config["dataset"]["private_people"], config["dataset"]["test_fraction"]) == (1000, 0.1)
        assert config["dataset"]["parting"] == "most"
        assert (config["budget"]["targets"], config["budget"]["samples"]) == (300, 5)
    assert (low["dataset"]["crop"], low["dataset"]["size"], low["dataset"]["public_limit"]) == (108, 64, 30000)
    assert (high["dataset"]["size"], high["target"]["arch"]) == (224, "resnet18")


def test_the_utility_sweep_meets_every_defense_with_levels_that_anything_can_meet():
    runnable = [cell for cell in plan_cells(GRIDS["utility_sweep"].cells()) if not cell.reason]
    met = {cell.choices["defense"] for cell in runnable}
    declared = {one.name for one in entries("defense") if one.card.levels and not one.card.variant_of}
    assert {"none", "bido", "dp_sgd", "rounding", "top_k", "privacy_guided_trees"} <= met
    assert met <= {"none", "bido_coco", *declared}
