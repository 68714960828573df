"""Every key under ``conf`` is read by something: an argument of its class, or by the code, which a spy sees."""

import dataclasses
import inspect

import pytest
import yaml
from hydra.utils import get_class
from omegaconf import OmegaConf

from mibench.access import Ledger, NoView
from mibench.cli.run_command import run_planned
from mibench.cli.stored import results_folder
from mibench.cli.sweeping import pack_size
from mibench.planning.catalogue import AXES, conf_dir
from mibench.planning.composition import compose, compose_paths
from mibench.planning.grid import read_grid
from mibench.planning.plan import plan_cell
from mibench.running.cell import Cell
from mibench.running.standing import finished
from mibench.settings.base import Observation
from mibench.training import Recipe

#: Read while a cell is planned, or from the configuration of a sweep; below and in tests/cli stands what they do.
OUTSIDE = {"verbose", "grid", "pack", "paths.data", "seeds"}


class Spy(dict):
    """A block that notes which of its keys are asked for by name; copying or hashing the whole of it is no reading."""

    def __init__(self, block, seen, prefix=""):
        super().__init__(
            (key, Spy(value, seen, f"{prefix}{key}.") if isinstance(value, dict) else value)
            for key, value in block.items()
        )
        self.seen, self.prefix = seen, prefix

    def __getitem__(self, key):
        self.seen.add(f"{self.prefix}{key}")
        return super().__getitem__(key)

    def get(self, key, default=None):
        self.seen.add(f"{self.prefix}{key}")
        return super().get(key, default)


@pytest.fixture
def spied(tmp_path):
    """Plans a small cell: ``spied("attack=dlg")`` gives its plan, and ``spied.seen`` what was read of all so far."""

    def make(*words):
        here = [f"paths.store={tmp_path}/store", f"paths.results={tmp_path}/results", "device=cpu", "budget=smoke"]
        plan = plan_cell(compose([*here, *words]))
        return dataclasses.replace(plan, config=Spy(plan.config, make.seen))

    make.seen = set()
    return make


def test_every_key_that_belongs_to_no_component_is_read(spied, digits8, monkeypatch, tmp_path):
    tiny = ["attack.iterations=1", "target.recipe.epochs=1", "target.recipe.min_steps=0", "dataset.size=8",
            "evaluation.min_steps=20"]  # fmt: skip
    plan = spied("attack=mi_face", *tiny)
    assert finished(plan) is None and run_planned(plan) == 0
    for attack in ("dlg", "fredrikson_map"):
        extra = ["dataset=bank_marketing"] if attack == "fredrikson_map" else ["metric=[lpips]"]
        cell = Cell(spied(f"attack={attack}", "knowledge.marginals=false", *extra))
        cell.split = digits8
        if attack == "fredrikson_map":  # which needs no victim for what is looked at here
            cell.observation = Observation(NoView(digits8.spec, Ledger(), cell.workshop.device))
        assert cell.knowledge is not None
    split = Cell(spied("attack=unsplit", *tiny[1:]))
    assert split.knowledge.names() == ("encoder:architecture",)
    assert "lengths" in Cell(spied("attack=lamp", "dataset=shakespeare")).knowledge.facts
    file = yaml.safe_load((conf_dir() / "cell.yaml").read_text())
    keys = {key for key, value in file.items() if not isinstance(value, dict)} - {"defaults"}
    keys |= {f"{block}.{key}" for block in ("knowledge", "evaluation") for key in file[block]}
    keys |= {f"budget.{key}" for name in ("smoke", "standard", "paper") for key in read("budget", name)}
    keys |= {f"paths.{key}" for key in read("paths", "default")}
    keys |= {axis for one in file["defaults"] if isinstance(one, dict) for axis in one if " " not in axis}
    assert len(keys) > 30 and not keys - spied.seen - OUTSIDE


def test_a_key_that_nothing_reads_would_be_seen(spied):
    plan = spied("attack=mi_face")
    assert "seed" not in spied.seen
    assert plan.cell_id and "seed" not in spied.seen, "hashing is no reading"
    before = set(spied.seen)
    assert plan.config["knowledge"]["labels"] is False and spied.seen - before == {"knowledge", "knowledge.labels"}


def test_keys_of_sweeps_folders_and_priors_do_what_they_say(spied, digits8, monkeypatch, tmp_path):
    assert pack_size(compose(["pack=3"])) == 3
    assert plan_cell(compose(["seeds=all", "seed=3"])).config["evaluation"]["seed"] == 3
    assert plan_cell(compose([f"paths.data={tmp_path}"])).config["dataset"]["data_root"] == str(tmp_path)
    given = []
    monkeypatch.setattr("mibench.running.adversary.trained_prior", lambda *arguments: given.append(arguments[-1]))
    cell = Cell(spied("attack=gmi", "prior.seed=7"))
    cell.split = digits8
    assert cell.knowledge and given == [7]


def read(group, name):
    return yaml.safe_load((conf_dir() / group / f"{name}.yaml").read_text())


@pytest.mark.parametrize("file", sorted((conf_dir() / "logger").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_loggers_keys_are_its_arguments(file):
    node = yaml.safe_load(file.read_text())
    assert set(node) - {"name", "_target_"} == set(inspect.signature(get_class(node["_target_"])).parameters)


@pytest.mark.parametrize("file", sorted((conf_dir() / "grid").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_grids_keys_are_read(file):
    node, seen = yaml.safe_load(file.read_text()), set()
    read_grid(Spy(node, seen))
    assert not set(node) - seen


@pytest.mark.parametrize("file", sorted((conf_dir() / "target").glob("*.yaml")), ids=lambda file: file.stem)
def test_a_recipes_keys_are_its_fields(file):
    named = {field.name for field in dataclasses.fields(Recipe)} - {"flip"}  # which evaluation models alone set
    assert set(yaml.safe_load(file.read_text())["recipe"]) == named


def test_every_folder_of_conf_is_looked_at():
    assert {path.name for path in conf_dir().iterdir()} == {
        *AXES,
        "budget",
        "calibration",
        "grid",
        "logger",
        "paths",
        "cell.yaml",
    }


def test_paths_alone_are_those_of_a_whole_cell(tmp_path, monkeypatch):
    monkeypatch.setenv("MIBENCH_DATA", "/somewhere")
    for words in ([], [f"paths.results={tmp_path}/a"], ["paths.store=/x"]):
        alone = OmegaConf.to_container(compose_paths(words), resolve=True)
        assert alone == OmegaConf.to_container(compose(words).paths, resolve=True)
    assert str(results_folder([f"paths.results={tmp_path}"])) == str(tmp_path)
