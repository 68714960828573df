import itertools

import pytest

from mibench.errors import UserError
from mibench.planning.composition import compose
from mibench.planning.length import doubled, fitting, length_of, probes, with_length
from mibench.planning.plan import plan_cell


def planned(*words):
    return plan_cell(compose(list(words)))


def taken(length, fixed, per):
    return fixed + sum(per[name] * steps for name, steps in length.items())


def test_the_length_of_a_wrapper_holds_that_of_the_attack_it_wraps():
    plan = planned("attack=lomma", "attack@attack.base=kedmi", "attack.epochs=4", "attack.base.iterations=9")
    assert length_of(plan.config["attack"]) == {"epochs": 4, "base.iterations": 9}
    longer = with_length(plan, doubled(length_of(plan.config["attack"])))
    assert (longer.config["attack"]["epochs"], longer.config["attack"]["base"]["iterations"]) == (8, 18)
    assert plan.config["attack"]["epochs"] == 4, "the plan itself stays as it is"
    words = ["attack=lomma", "attack@attack.base=kedmi", "attack.epochs=8", "attack.base.iterations=18"]
    assert longer.cell_id == planned(*words).cell_id, "it is the cell of whoever sets these options"


def test_an_option_at_0_is_left_as_it_is_and_an_attack_that_says_nothing_is_told_how():
    node = planned("attack=tag", "dataset=sst2", "attack.warmup=0").config["attack"]
    assert set(length_of(node)) == {"iterations"}
    with pytest.raises(UserError, match=r"Attack 'mine' does not say .* length = \(\"iterations\",\)"):
        length_of({"_target_": "mibench.attacks.base.Attack", "name": "mine"})


def test_a_plan_at_another_length_has_no_budget_of_gradients():
    plan = planned("attack=mi_face", "budget.gradients=70")
    assert with_length(plan, {"iterations": 5}).cell_id == planned("attack=mi_face", "attack.iterations=5").cell_id


@pytest.mark.parametrize("length", [{"a": 70}, {"a": 70, "b": 25}, {"a": 6, "b": 4, "c": 15}])
def test_the_fitted_length_is_the_largest_multiple_within_the_budget(length):
    fixed, per = 7, {"a": 3, "b": 5, "c": 0}
    probed = {key: taken(steps, fixed, per) for key, steps in probes(length).items()}
    multiples = [{n: max(1, v * k // 2000) for n, v in length.items()} for k in range(1, 20_000)]
    for most in (probed[""], probed[""] + 1, 40, 100, 333, 1000):
        found = fitting(length, probed, most)
        within = [one for one in multiples if taken(one, fixed, per) <= most]
        best = max(taken(one, fixed, per) for one in within)
        assert best <= taken(found, fixed, per) <= most
    assert fitting(length, probed, probed[""] - 1) is None


def test_options_keep_their_proportion_and_those_that_cost_nothing_go_with_them():
    length = {"a": 100, "b": 50, "c": 10}
    probed = {key: taken(steps, 0, {"a": 2, "b": 2, "c": 0}) for key, steps in probes(length).items()}
    assert fitting(length, probed, 600) == {"a": 200, "b": 100, "c": 20}
    assert fitting(length, probed, 150) == {"a": 50, "b": 25, "c": 5}
    assert probes({"a": 9, "b": 4}) == {"": {"a": 1, "b": 1}, "a": {"a": 2, "b": 1}, "b": {"a": 1, "b": 2}}
    assert all(one >= 1 for one in itertools.chain(*(x.values() for x in probes(length).values())))


def test_neither_key_moves_an_id_at_its_default():
    plain = planned("attack=mi_face")
    assert planned("attack=mi_face", "budget.gradients=null").cell_id == plain.cell_id
    assert planned("attack=mi_face", "convergence=check").cell_id == plain.cell_id
    assert planned("attack=mi_face", "budget.gradients=100").cell_id != plain.cell_id
    assert "gradients" not in plain.description["budget"] and "convergence" not in plain.description
