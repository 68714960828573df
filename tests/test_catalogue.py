"""One test over the whole catalogue: the four places agree, and every card says what it must."""

import dataclasses
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


def lacking(one):
    """What a component's files lack, as sentences for whoever adds one: which file, and what to put there."""
    module, _, _ = one.node["_target_"].rpartition(".")
    stem, yaml_file = one.card.variant_of or one.name, f"conf/{one.axis}/{one.name}.yaml"
    source, test = f"mibench/{one.axis}s/{stem}.py", f"tests/{one.axis}s/test_{stem}.py"
    if one.node["name"] != one.name:
        yield f"{yaml_file} has 'name: {one.node['name']}'; write 'name: {one.name}', the name of the file."
    if one.card.name != one.name:
        yield f"The card in {source} has name='{one.card.name}', but {yaml_file} is '{one.name}': make them equal."
    if module != f"mibench.{one.axis}s.{stem}":
        yield f"{yaml_file} has '_target_: {one.node['_target_']}'; put the class into {source} and name it there."
    if one in METHODS:
        if not (ROOT / test).exists():
            yield f"{test} is missing; add the test of {source} (CONTRIBUTING.md, step 3)."
        if one.card.bib and one.card.bib not in bib_keys():
            yield f"references.bib has no entry '{one.card.bib}', which the card in {source} cites; add it."
        if one.card.bib and not one.card.year > 1950:
            yield f"The card in {source} cites '{one.card.bib}' and lacks year=; write the year of the paper."
        if one.axis == "attack" and one.card.family != "floor" and not one.card.bib:
            yield f"The card in {source} cites no paper; write year= (and bib=, where the key is not '{stem}')."
    yield from _options_lacking(one, yaml_file, source)


def _options_lacking(one, yaml_file, source):
    """An option that only the code knows could neither be set nor be part of what a cell is."""
    component = get_class(one.node["_target_"])
    parameters = {key.rstrip("_"): value for key, value in inspect.signature(component).parameters.items()}
    described = {"name", "variant_of", "_target_", *(["recipe"] if one.axis == "target" else [])}
    described |= {"access"} if one.axis == "attack" else set()
    described |= {"seed"} if one.axis == "prior" else set()
    described |= {"options"} if "parts" in one.node else set()  # of the parts of a stack
    for key in sorted(set(parameters) - {"spec"} - (set(one.node) - described)):
        yield f"{yaml_file} lacks the option '{key}' of the class in {source}; add '{key}: {parameters[key].default}'."
    for key in sorted(set(one.node) - described - set(parameters)):
        yield f"{yaml_file} has '{key}', which is no annotated field of the class in {source}; add or drop it."
    if one.axis == "attack":
        if one.node["access"] not in one.card.access:
            yield f"{yaml_file} has 'access: {one.node['access']}'; write one of those on the card: {one.card.access}."
        for option, value in one.node.items():
            if option in parameters and isinstance(value, str) and value.startswith("${by_budget:"):
                paper, default = yaml.safe_load(value.removesuffix("}").rpartition(",")[2]), parameters[option].default
                if paper != default:
                    yield f"{yaml_file} has '{option}' {paper} for budget=paper, {source} {default}: make them equal."


@pytest.mark.parametrize("one", ALL, ids=lambda one: f"{one.axis}-{one.name}")
def test_a_component_has_all_its_files_say(one):
    """Names, test, reference and options agree; what is missing is said by file."""
    assert not (said := list(lacking(one))), "\n" + "\n".join(said)


def odd(axis, stem, **changes):
    """A component of the catalogue with another card or block."""
    one = entry(axis, stem)
    card = {key: changes.pop(key) for key in ("bib", "year") if key in changes}
    return dataclasses.replace(one, card=dataclasses.replace(one.card, **card), node={**one.node, **changes})


@pytest.mark.parametrize(("one", "said"), [
    (odd("attack", "gmi", name="gmii"), "conf/attack/gmi.yaml has 'name: gmii'; write 'name: gmi'"),
    (odd("attack", "gmi", _target_="mibench.attacks.mi_face.MiFace"), "put the class into mibench/attacks/gmi.py"),
    (odd("attack", "gmi", bib="nobody"), "references.bib has no entry 'nobody', which the card in mibench/attacks"),
    (odd("attack", "gmi", extra=1), "conf/attack/gmi.yaml has 'extra', which is no annotated field"),
    (odd("attack", "gmi", access="labels"), "conf/attack/gmi.yaml has 'access: labels'; write one of those"),
])  # fmt: skip
def test_what_is_missing_is_said_by_file(one, said):
    METHODS.append(one)
    try:
        sentences = list(lacking(one))
    finally:
        METHODS.pop()
    assert any(said in sentence for sentence in sentences)


def test_every_module_has_a_yaml_and_no_reference_is_orphaned():
    said = []
    for axis in AXES:
        modules = {path.stem for path in (ROOT / "mibench" / f"{axis}s").glob("*.py")} - {"__init__", "base"}
        modules -= PARTS.get(axis, set())
        named = {one.card.variant_of or one.name for one in entries(axis)}
        said += [f"mibench/{axis}s/{one}.py has no yaml; add conf/{axis}/{one}.yaml." for one in modules - named]
        said += [f"conf/{axis}/{one}.yaml names no module; add mibench/{axis}s/{one}.py." for one in named - modules]
    cited = {one.card.bib for one in ALL if one.card.bib}
    said += [f"references.bib has '{key}', which no card cites; cite it (year=, bib=) or drop it." for key in
             bib_keys() - cited]  # fmt: skip
    said += [f"references.bib lacks '{key}', which a card cites; add the entry." for key in cited - bib_keys()]
    assert not said, "\n" + "\n".join(said)


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
