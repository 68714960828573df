from pathlib import Path

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from mibench.errors import IncompatibleCellError, UnknownNameError, UserError
from mibench.planning.catalogue import conf_dir, entries, entry
from mibench.planning.choices import choices_of
from mibench.planning.composition import build, compose
from mibench.planning.grid import Grid, cells_of, every_attack, plan_cells, read_grid
from mibench.planning.plan import plan_cell, refuse_incompatible

ROOT = Path(__file__).parent.parent


def hydras_choices(overrides):
    cfg = compose(overrides)
    return {axis: cfg[axis].name for axis in ("dataset", "setting", "target", "prior", "attack", "defense")}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        *[[f"attack={one.name}"] for one in entries("attack")],
        *[[f"dataset={one.name}"] for one in entries("dataset")],
        ["attack=dlg", "dataset=bank_marketing"],
        ["attack=fredrikson_map", "dataset=bank_marketing"],
        ["attack=gmi", "prior=none"],
        ["attack=dlg", "target=cnn", "setting=central"],
    ],
    ids=" ".join,
)
def test_choices_are_those_that_hydra_composes(overrides):
    assert choices_of(overrides) == hydras_choices(overrides)


@pytest.mark.parametrize(
    "overrides",
    [
        ("attack=gmi", "defense=rounding"),
        ("attack=gmi", "defense=bido"),
        ("attack=random_prior", "defense=bido"),
        ("attack=idlg", "setting.batch_size=4"),
        ("attack=gmi", "attack.access=scores"),
        ("attack=dlg", "defense=dgc"),
        ("attack=mi_face", "setting=federated", "defense=dgc"),
        ("attack=mi_face", "setting=federated", "defense=dgc", "setting.rounds=1"),
    ],
    ids=" ".join,
)
def test_the_reason_is_that_of_the_composed_cell(overrides):
    (planned,) = plan_cells([overrides])
    try:
        refuse_incompatible(plan_cell(compose(overrides)))
        said = ""
    except IncompatibleCellError as error:
        said = str(error)
    assert planned.reason == said


def test_variants_change_a_cell_one_at_a_time_and_replace_what_is_fixed():
    variants = {"plain": [], "blind": ["knowledge.labels=false", "setting.lr=1"]}
    grid = Grid("g", {"attack": ["a", "b"]}, ["knowledge.labels=true"], [{"attack": "b", "variant": "blind"}], variants)
    assert grid.cells() == [
        ("knowledge.labels=true", "attack=a"),
        ("knowledge.labels=false", "setting.lr=1", "attack=a"),
        ("knowledge.labels=true", "attack=b"),
    ]
    assert grid.cells(["setting.lr=2", "attack=a"])[1] == ("knowledge.labels=false", "setting.lr=2", "attack=a")


def test_a_grid_adjusts_the_cells_that_a_block_matches():
    adjust = [
        {"attack": ["a", "b"], "set": ["attack.iterations=9", "target=lenet"]},
        {"attack": "b", "setting.batch_size": [8], "set": ["attack.iterations=3"]},
    ]
    grid = Grid("g", {"attack": ["a", "b", "c"], "setting.batch_size": [8]}, ["target=mlp"], [], adjust=adjust)
    assert grid.cells() == [
        ("target=lenet", "attack.iterations=9", "attack=a", "setting.batch_size=8"),
        ("target=lenet", "attack.iterations=3", "attack=b", "setting.batch_size=8"),
        ("target=mlp", "attack=c", "setting.batch_size=8"),
    ]
    assert "attack.iterations=3" not in grid.cells(["attack.iterations=7"])[1], "the command line wins"


def test_what_a_grid_excludes_stays_out_where_the_command_line_narrows_an_axis():
    grid = Grid("g", {"attack": ["a", "b"], "seed": [0, 1]}, [], [{"attack": "a", "seed": [1]}])
    assert grid.cells(["attack=a"]) == [("seed=0", "attack=a")]
    assert grid.cells(["seed=1"]) == [("attack=b", "seed=1")]
    assert grid.cells(["attack=a", "seed=1"]) == [("attack=a", "seed=1")], "asked for by name"


def test_a_grid_is_its_axes_without_what_it_excludes():
    grid = Grid("g", {"attack": ["a", "b"], "defense": ["x", "y"], "seed": [0, 1]}, ["budget=smoke"],
                [{"attack": "a", "defense": ["y", "z"]}])  # fmt: skip
    cells = grid.cells()
    assert len(cells) == 6 and ("budget=smoke", "attack=a", "defense=x", "seed=0") in cells
    assert not [cell for cell in cells if "attack=a" in cell and "defense=y" in cell]


def test_a_grids_null_is_one_on_the_command_line():
    assert Grid("g", {"setting.pooled_epochs": [0, None]}, [], []).cells()[1] == ("setting.pooled_epochs=null",)


def test_the_command_line_wins_over_a_grid():
    grid = Grid("g", {"attack": ["a", "b"], "seed": [0, 1]}, ["budget=smoke"], [])
    assert grid.cells(["seed=7", "budget=paper"]) == [
        ("attack=a", "seed=7", "budget=paper"),
        ("attack=b", "seed=7", "budget=paper"),
    ]


@pytest.mark.parametrize(
    ("node", "said"),
    [
        ({"axes": {"attack": 3}}, "axes"),
        ({"fixed": ["seed"]}, "fixed"),
        ({"exclude": ["attack=a"]}, "exclude"),
        ({"variants": {"a": "b"}}, "variants"),
        ({"adjust": [{"attack": "a"}]}, "adjust"),
        ({"adjust": [{"attack": "a", "set": "seed=1"}]}, "adjust"),
    ],
)
def test_a_malformed_grid_is_said_so(node, said):
    with pytest.raises(UserError, match=said):
        read_grid({"name": "mine", **node})


@pytest.mark.parametrize("file", sorted((conf_dir() / "grid").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_named_grid_can_be_planned_and_runs_something(file):
    grid = read_grid(yaml.safe_load(file.read_text()))
    assert grid.name == file.stem
    planned = plan_cells(grid.cells()) if grid.axes else []
    assert not grid.axes or any(not cell.reason for cell in planned)


def test_a_worst_case_is_all_attacks_of_one_access():
    (word, *rest) = every_attack(["attack=worst_case", "attack.access=white_box", "defense=bido"])
    names = word.removeprefix("attack=").split(",")
    assert {"gmi", "ppa", "mi_face"} <= {*names} and not {"dlg", "random_prior", "lomma", "worst_case"} & {*names}
    assert rest == ["attack.access=white_box", "defense=bido"]
    assert every_attack(["attack=gmi"]) == ["attack=gmi"]
    for access in ([], ["attack.access=none"], ["attack.access=all"]):
        with pytest.raises(UserError, match=r"attack\.access"):
            every_attack(["attack=worst_case", *access])


def test_adaptive_is_whoever_knows_of_each_defense():
    def cells(*words, **node):
        return cells_of(read_grid({"name": "mine", **node}), [list(words)])

    found = cells("defense=mid", "attack=adaptive", "setting=central")
    assert [{*cell} >= {"attack=inversion_network", "knowledge.repeats=8"} for cell in found].count(True) == 1
    assert all("attack=adaptive" not in cell and "defense=mid" in cell and "setting=central" in cell for cell in found)
    everywhere = cells("defense=mid", "attack=adaptive")
    assert len(everywhere) > len(found) and any("setting=federated" in cell for cell in everywhere)
    (both,) = cells("defense=stack", "defense.parts=[rounding,top_k]", "attack=adaptive")  # each once
    assert "attack=inversion_network" in both


def test_a_grid_has_adaptive_attackers_beside_its_own_and_none_of_them_twice():
    axes = {"dataset": ["att_faces"], "attack": ["gmi", "brepmi", "adaptive"], "defense": ["none", "bido", "rounding"]}
    grid = read_grid({"name": "mine", "axes": axes, "fixed": ["setting=central"]})
    found = [(cell[2], cell[3]) for cell in grid.cells()]
    own = [(f"attack={attack}", f"defense={one}") for attack in ("gmi", "brepmi") for one in axes["defense"]]
    assert sorted(found) == sorted([*own, ("attack=inversion_network", "defense=rounding")])
    no_labels = read_grid({"name": "mine", "axes": axes, "exclude": [{"attack": "inversion_network"}]})
    assert not [cell for cell in no_labels.cells() if "attack=inversion_network" in cell]


def test_nobody_knows_of_no_defense():
    with pytest.raises(UserError, match="adaptive stands for"):
        cells_of(read_grid({"name": "mine"}), [["attack=adaptive", "defense=none"]])


def test_an_unknown_choice_is_named():
    with pytest.raises(UnknownNameError, match="gmi"):
        plan_cells([("attack=gmii",)])


def test_planning_imports_neither_torch_nor_a_method(light_commands):
    status, out, modules = light_commands["plan grid=first"]
    assert status == 0 and "to run" in out and "torch" not in modules
    assert not [name for name in modules if name.startswith("mibench.attacks.")]


def test_a_grid_runs_every_defense_over_the_levels_of_its_strength():
    node = {"name": "g", "axes": {"defense": ["none", "bido", "bido_coco"], "seed": [0]}, "strengths": True}
    cells = read_grid(node).cells()
    swept = ["defense.a1=0", *(f"defense.a1={level:g}" for level in entry("defense", "bido").card.levels)]
    assert len(swept) > 3 and len(cells) == 2 + len(swept)  # a variant has a scale of its own
    assert [cell[-1] for cell in cells if "defense=bido" in cell] == swept, "the baseline first"
    given = read_grid(node).cells(["defense.a1=0.3"])
    assert given.count(("defense=bido", "seed=0", "defense.a1=0.3")) == 1 and len(given) == 3


def test_all_defenses_of_a_grid_are_those_that_declare_levels():
    node = {"name": "g", "axes": {"defense": ["all"]}, "strengths": True}
    chosen = {cell[0] for cell in read_grid(node).cells()}
    declared = {f"defense={one.name}" for one in entries("defense") if one.card.levels and not one.card.variant_of}
    assert chosen == {"defense=none"} | declared and {"defense=bido", "defense=rounding"} <= declared
    node["axes"]["defense"] = ["all", "bido_coco", "bido"]
    assert {cell[0] for cell in read_grid(node).cells()} == chosen | {"defense=bido_coco"}


def test_the_levels_are_values_of_the_strength():
    for one in entries("defense"):
        assert not one.card.levels or (one.card.strength and len(set(one.card.levels)) >= 3), one.name


@pytest.mark.parametrize("one", [one for one in entries("defense") if one.card.levels], ids=lambda one: one.name)
def test_every_level_is_one_that_the_defense_takes(one):
    cfg = compose([f"defense={one.name}"])
    for level in one.card.levels:
        word = OverridesParser.create().parse_override(f"defense.{one.card.strength}={level:g}")
        assert OmegaConf.select(cfg, word.key_or_group, default=cfg) is not cfg, "an option that there is"
        OmegaConf.update(cfg, word.key_or_group, word.value())
        build(plan_cell(cfg).config["defense"])


def test_a_plan_names_data_that_are_missing(tmp_path, capsys):
    from mibench.cli.main import main

    words = ["plan", "attack=gmi", f"paths.data={tmp_path}"]
    assert main([*words, "dataset=digits,att_faces,mnist"]) == 0
    said = capsys.readouterr().out
    assert f"data of 1 cells are missing: mnist is missing below {tmp_path}: python -m mibench fetch mnist" in said
    assert "att_faces is missing" in said and "digits is" not in said
    assert main([*words, "dataset=image_folder", f"dataset.root={tmp_path},{tmp_path}/no"]) == 0
    assert f"dataset.root={tmp_path}/no is not there" in capsys.readouterr().out
