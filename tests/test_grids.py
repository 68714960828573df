"""Every cell of the published protocols can be composed, with options that exist and have the published values."""

import pytest
import yaml

from mibench.planning.catalogue import conf_dir, entries, entry
from mibench.planning.composition import component_of, compose
from mibench.planning.grid import plan_cells, read_grid
from mibench.planning.plan import plan_cell, refuse_incompatible

GRIDS = {file.stem: read_grid(yaml.safe_load(file.read_text())) for file in (conf_dir() / "grid").glob("*.yaml")}
CELLS = [(name, cell) for name, grid in GRIDS.items() if grid.fixed and not grid.strengths for cell in grid.cells()]


@pytest.mark.parametrize(("name", "cell"), CELLS, ids=lambda one: one if isinstance(one, str) else one[-2])
def test_a_cell_of_a_published_protocol_is_sound(name, cell):
    plan = plan_cell(compose(cell))
    refuse_incompatible(plan)
    for axis in ("dataset", "target", "attack", "defense"):
        component_of(plan.config[axis])
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
    known = {"none", "bido_coco", *declared}
    assert {"none", "bido", "dp_sgd", "rounding", "top_k", "privacy_guided_trees"} <= met <= known
    for name in sorted(met):  # one cell of each
        plan = plan_cell(compose(next(cell.overrides for cell in runnable if cell.choices["defense"] == name)))
        refuse_incompatible(plan)
        component_of(plan.config["defense"])
