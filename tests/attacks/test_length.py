"""What every attack says of its length: the options that count its steps, by which its victim gradients grow."""

import ast
import inspect
import textwrap

import pytest
from hydra.utils import get_class

from mibench.attacks.base import Attack
from mibench.options import expected_types
from mibench.planning.catalogue import entries
from mibench.planning.length import length_of, probes, with_length
from mibench.running.pace import gradients_of

ATTACKS = {entry.name: entry.node for entry in entries("attack")}

#: Options by which an attack counts starts, candidates or parts of its work instead of steps of a search.
BREADTH = {"draws_", "batch", "candidates", "num_candidates"}

#: Attacks of every loop whose smallest runs are cheap, with the options of their length.
CHEAP = {
    "mi_face": ["iterations"],
    "gmi": ["iterations"],
    "ifgmi": ["first_steps", "later_steps"],
    "mirror_white": ["iterations"],
    "inverting_gradients": ["iterations"],
    "split_rmle": ["iterations"],
}


def methods(component):
    """Returns the syntax of the class's own methods and of those of its families."""
    for owner in component.__mro__:
        if owner is not Attack and owner.__module__.startswith("mibench.attacks"):
            yield ast.parse(textwrap.dedent(inspect.getsource(owner)))


def counted(component):
    """Returns the options that stand in the counts of the steps that an attack takes."""
    return {
        part.attr
        for tree in methods(component)
        for call in ast.walk(tree)
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "self.steps" and call.args
        for part in ast.walk(call.args[0])
        if isinstance(part, ast.Attribute) and ast.unparse(part.value) == "self"
    }


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_says_which_options_are_its_length(name):
    component = get_class(ATTACKS[name]["_target_"])
    stated = next((vars(owner)["length"] for owner in component.__mro__ if "length" in vars(owner)), None)
    assert stated is component.length is not None, "the class or its family has to say it"
    assert set(stated) <= set(expected_types(component)) & set(ATTACKS[name])
    assert counted(component) - BREADTH <= set(stated), "an option that counts steps is part of the length"


def test_a_count_of_steps_that_is_no_part_of_the_length_would_be_seen():
    assert counted(get_class(ATTACKS["mi_face_denoise"]["_target_"])) == {"iterations", "training_steps"}
    assert counted(get_class(ATTACKS["nearest_public"]["_target_"])) == set()


@pytest.mark.parametrize("name", CHEAP)
def test_gradients_are_linear_in_the_length_and_twice_the_steps_take_twice_as_many(name, make_cell):
    small = ["target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.models=[mlp]"]
    small += ["prior.iterations=2"] if "prior" in get_class(ATTACKS[name]["_target_"]).card.needs else []
    cell = make_cell(f"attack={name}", "dataset=digits", "dataset.size=8", *small)
    length = length_of(cell.config["attack"])
    assert list(length) == CHEAP[name]

    def gradients(steps):
        short = cell.with_plan(with_length(cell.plan, steps))
        return gradients_of(short.attack(cell.victim, cell.split.private, "short"))

    probed = {key: gradients(steps) for key, steps in probes(length).items()}
    more = sum(probed[name] - probed[""] for name in length)
    assert more > 0 and all(probed[name] > probed[""] for name in length)
    fixed = probed[""] - more  # what is taken whatever the length
    for steps in (3, 6):
        assert gradients(dict.fromkeys(length, steps)) == fixed + steps * more
