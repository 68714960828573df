"""One test over the whole catalogue: the four places agree, and every card says what it must."""

import inspect
import re
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class

from mibench.card import HOOKS_ON_PATH, AttackCard, DefenseCard, MetricCard
from mibench.errors import UnknownNameError, UserError
from mibench.planning.catalogue import AXES, conf_dir, entries, entry

ROOT = Path(__file__).parent.parent
ALL = [one for axis in AXES for one in entries(axis)]
METHODS = [one for one in ALL if one.axis in ("attack", "defense", "metric") and one.name != "none"]


#: Modules beside the components of an axis that hold what several of them are made of.
PARTS = {"setting": {"across", "clients", "evaluators", "updates", "victim"}}


def bib_keys():
    return set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "references.bib").read_text(), re.MULTILINE))


def test_every_reference_is_closed():
    entries = re.split(r"^(?=@)", (ROOT / "references.bib").read_text(), flags=re.MULTILINE)[1:]
    assert len(entries) == len(bib_keys()) and not [one for one in entries if one.count("{") != one.count("}")]


@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.axis}-{one.name}")
def test_names_agree(one):
    module, _, _ = one.node["_target_"].rpartition(".")
    stem = module.rpartition(".")[2]
    assert one.node["name"] == one.name == one.card.name
    assert stem == (one.card.variant_of or one.name)
    assert module == f"mibench.{one.axis}s.{stem}"


@pytest.mark.parametrize("one", METHODS, ids=lambda one: f"{one.axis}-{one.name}")
def test_a_method_has_its_test_and_its_reference(one):
    stem = one.card.variant_of or one.name
    assert (ROOT / "tests" / f"{one.axis}s" / f"test_{stem}.py").exists()
    if one.card.bib:
        assert one.card.bib in bib_keys()
        assert one.card.year > 1950
    if one.axis == "attack" and one.card.family != "floor":
        assert one.card.bib, "an attack cites its paper"


@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.axis}-{one.name}")
def test_a_yaml_holds_every_option_of_its_class(one):
    """An option that only the code knows could neither be set nor be part of what a cell is."""
    component = get_class(one.node["_target_"])
    parameters = {key.rstrip("_"): value for key, value in inspect.signature(component).parameters.items()}
    described = {"name", "variant_of", "_target_", *(["recipe"] if one.axis == "target" else [])}
    described |= {"access"} if one.axis == "attack" else set()
    described |= {"seed"} if one.axis == "prior" else set()
    described |= {"options"} if "parts" in one.node else set()  # of the parts of a stack
    assert set(one.node) - described == set(parameters) - {"spec"}
    if one.axis == "attack":
        assert one.node["access"] in one.card.access
        for option, value in one.node.items():
            if isinstance(value, str) and value.startswith("${by_budget:"):
                paper = yaml.safe_load(value.removesuffix("}").rpartition(",")[2])
                assert paper == parameters[option].default, f"budget=paper and the class differ in {option}"


def test_every_module_has_a_yaml_and_no_reference_is_orphaned():
    for axis in AXES:
        modules = {path.stem for path in (ROOT / "mibench" / f"{axis}s").glob("*.py")} - {"__init__", "base"}
        modules -= PARTS.get(axis, set())
        assert modules == {one.card.variant_of or one.name for one in entries(axis)}, axis
    assert bib_keys() == {one.card.bib for one in ALL if one.card.bib}


def test_a_defense_affects_only_what_its_hooks_reach():
    for one in entries("defense"):
        card = one.card
        assert isinstance(card, DefenseCard)
        for access in card.affects:
            assert set(card.hooks) & set(HOOKS_ON_PATH[access]), f"{card.name} cannot change what {access} sees"


def test_every_task_with_an_attack_has_default_metrics():
    tasks = {one.card.task for one in entries("attack") if isinstance(one.card, AttackCard)}
    for task in tasks:
        named = [one.name for one in entries("metric") if isinstance(one.card, MetricCard) and task in one.card.tasks]
        assert len(named) >= 2, task


def test_an_unknown_name_is_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean gmi"):
        entry("attack", "gmii")


def test_a_nested_block_without_its_header_is_said_so(tmp_path, monkeypatch):
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "mine.yaml").write_text("attack:\n  name: mine\n  _target_: a.B\n")
    monkeypatch.setattr("mibench.planning.catalogue.conf_dir", lambda: tmp_path)
    with pytest.raises(UserError, match="@package _global_"):
        list(entries("attack"))


def test_groups_are_flat():
    assert not [path for axis in AXES for path in (conf_dir() / axis).iterdir() if path.is_dir()]


def test_listing_does_not_import_torch(light_commands):
    status, _, modules = light_commands["list"]
    assert status == 0 and "torch" not in modules
