import pytest
import torch

from mibench.card import HOOKS
from mibench.defenses.base import Client, Customer, Defense
from mibench.defenses.bido import Bido
from mibench.defenses.dgc import Dgc
from mibench.defenses.dp_sgd import DpSgd
from mibench.defenses.precode import Precode
from mibench.defenses.rounding import Rounding
from mibench.defenses.stack import Stack
from mibench.errors import IncompatibleCellError, QueryRefused, UserError
from mibench.planning.composition import build, compose
from mibench.planning.grid import plan_cells
from mibench.planning.plan import plan_cell
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.cnn import Cnn
from mibench.training import Batch, Recipe, cross_entropy


def victim_of(defense, split, workshop, key):
    blueprint = Blueprint("cnn", lambda spec: Cnn(spec=spec, width=4), Recipe(epochs=2, batch_size=64), {})
    return train_central(blueprint, split.private, split, defense, workshop, {"defense": key}, 0, "victim")


class Twice(Defense):
    def output(self, probabilities):
        return 2 * probabilities


class Plus(Defense):
    def output(self, probabilities):
        return probabilities + 1


def test_training_and_answer_are_those_of_the_parts(digits8, workshop):
    x = digits8.private.test.x
    bido = victim_of(Bido(), digits8, workshop, "bido").predict_proba(x)
    both = victim_of(Stack(parts=[Bido(), Rounding(step=0.1)]), digits8, workshop, "both").predict_proba(x)
    assert torch.equal(both, Rounding(step=0.1).output(bido)) and not torch.equal(both, bido)


def test_a_stack_of_what_leaves_training_alone_leaves_it_alone(digits8, workshop):
    x = digits8.private.test.x
    plain = victim_of(Defense(), digits8, workshop, "none").predict_proba(x)
    stacked = Stack(parts=[Rounding(step=0.0), Dgc()])
    assert torch.equal(victim_of(stacked, digits8, workshop, "idle").predict_proba(x), plain)


def test_parts_act_at_one_hook_in_their_order():
    x = torch.ones(1, 2)
    assert Stack(parts=[Twice(), Plus()]).output(x)[0, 0] == 3 and Stack(parts=[Plus(), Twice()]).output(x)[0, 0] == 4


class Marking(Defense):
    """Says at every hook that it was there, and adds one to what numbers it is given."""

    def __init__(self, name, said):
        self.name, self.said = name, said

    def _mark(self, hook, value=None):
        self.said.append((hook, self.name))
        return value

    def input(self, x):
        return self._mark("input", x + 1)

    def features(self, features):
        return self._mark("features", features + 1)

    def explain(self, saliency, x, probabilities, customer):
        return self._mark("explain", saliency + 1)

    def data(self, train, context):
        return self._mark("data", train)

    def architecture(self, model, context):
        return self._mark("architecture", model)

    def learn(self, model, context):
        self._mark("learn")

    def attach(self, model, context):
        self._mark("attach")


def test_every_part_is_asked_once_and_in_its_order(trained_cnn, digits8):
    said, x = [], torch.zeros(1, 2)
    stack = Stack(parts=[Marking("first", said), Marking("second", said)])
    assert [float(one[0, 0]) for one in (stack.input(x), stack.features(x), stack.explain(x, x, x, None))] == [2, 2, 2]
    assert stack.data(digits8.private.train, None) is digits8.private.train
    assert stack.architecture(trained_cnn, None) is trained_cnn
    stack.learn(trained_cnn, None)
    stack.attach(trained_cnn, None)
    hooks = ("input", "features", "explain", "data", "architecture", "learn", "attach")
    assert said == [(hook, name) for hook in hooks for name in ("first", "second")]


def test_losses_beyond_the_cross_entropy_add_up(trained_cnn, digits8):
    examples = digits8.private.train[torch.arange(32)]
    batch = Batch(trained_cnn, examples.x, examples.y)
    first, second = Bido(), Bido(measure="coco", a1=1.0)
    expected = first.loss(batch) + second.loss(batch) - cross_entropy(batch)
    torch.testing.assert_close(Stack(parts=[first, Rounding(), second]).loss(batch), expected)
    assert torch.equal(Stack(parts=[first, Rounding()]).loss(batch), first.loss(batch))
    assert torch.equal(Stack(parts=[Rounding()]).loss(batch), cross_entropy(batch))


def test_each_part_keeps_a_state_of_its_own_for_a_client(trained_cnn, digits8):
    """Two compressors with error feedback, over three rounds: as if one stood behind the other."""
    batch = digits8.private.train[torch.arange(4)]
    draws = torch.Generator().manual_seed(0)

    def client(number, state):
        return Client(0, number, 1, trained_cnn, batch, 0, state=state)

    parts, together, apart = [Dgc(ratio=0.5, sample=1.0), Dgc(ratio=0.1, sample=1.0)], {}, ({}, {})
    stack = Stack(parts=parts)
    for number in range(3):
        gradient = {"w": torch.randn(10, 10, generator=draws)}
        expected = parts[1].update(parts[0].update(gradient, client(number, apart[0])), client(number, apart[1]))
        got = stack.update(gradient, client(number, together))
        assert torch.equal(got["w"], expected["w"])
    assert got["w"].count_nonzero() <= 10


def test_what_it_learned_comes_back_to_the_parts():
    class Learned(Defense):
        def __init__(self):
            self.value = torch.zeros(())

        def state(self):
            return {"value": self.value}

        def restore(self, state):
            self.value = state["value"]

    first, again = (Stack(parts=[Learned(), Rounding(), Learned()]) for _ in range(2))
    for number, part in ((0.0, first.parts[0]), (1.0, first.parts[2])):
        part.value = torch.tensor(number)
    again.restore(first.state())
    assert [float(part.value) for part in (again.parts[0], again.parts[2])] == [0.0, 1.0]


class Counting(Defense):
    remembers = True

    def answer(self, x, probabilities, customer):
        if customer is not None:
            asked = customer.memory.get("asked", torch.zeros(()))
            customer.memory["asked"] = asked + len(x)
            if asked >= 2:
                raise QueryRefused("enough")
        return self.output(probabilities)


def test_each_part_knows_a_customer_by_itself_and_may_refuse():
    customer, x = Customer(), torch.ones(1, 2)
    stack = Stack(parts=[Counting(), Plus(), Counting()])
    assert stack.remembers and not Stack(parts=[Plus()]).remembers
    for _ in range(2):
        assert float(stack.answer(x, x, customer)[0, 0]) == 2
    with pytest.raises(QueryRefused):
        stack.answer(x, x, customer)
    assert sorted(float(asked) for asked in customer.memory.values()) == [2, 3]  # the second part was not reached
    assert float(stack.answer(x, x, None)[0, 0]) == 2


def test_a_stack_learns_where_a_part_does_on_the_largest_reserve():
    class Learner(Defense):
        reserve_share = 0.25

        def learn(self, model, context):
            self.saw = len(context.data.reserve)

    assert not Stack(parts=[Plus(), Bido()]).learns and Stack(parts=[Plus(), Learner()]).learns
    assert Stack(parts=[Plus(), Learner()]).reserve_share == 0.25


def test_two_that_take_the_training_over_are_refused():
    for parts in ([DpSgd(), DpSgd()], [Bido(), DpSgd()], [DpSgd(), Precode()]):
        with pytest.raises(IncompatibleCellError, match=r"'dp_sgd' replaces the training.*defense\.parts"):
            Stack(parts=parts)
    assert Stack(parts=[DpSgd(), Rounding()]).hooks == ("architecture", "training", "output", "update")


def test_the_cell_names_all_parts_with_their_options():
    words = ["defense=stack", "defense.parts=[rounding,bido]", "defense.options.bido.a1=0.125"]
    plan = plan_cell(compose(words))
    card = plan.cards.defense
    assert card.name == "rounding+bido" and card.hooks == ("training", "output") and "white_box" in card.affects
    assert [part["name"] for part in plan.config["defense"]["parts"]] == ["rounding", "bido"]
    rounding, bido = build(plan.config["defense"]).parts
    assert (bido.a1, bido.a2, rounding.step) == (0.125, 0.5, 0.05)
    assert plan.cell_id != plan_cell(compose([*words[:2], "defense.options.bido.a1=0.25"])).cell_id


def test_a_part_outside_the_attacks_path_makes_no_cell_vacuous_and_two_do():
    one, two = (
        plan_cells([("attack=gmi", "defense=stack", f"defense.parts={parts}")])[0].reason
        for parts in ("[bido,rounding]", "[rounding,dgc]")
    )
    assert not one and two.startswith("Vacuous: defense 'rounding+dgc'")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["defense.parts=[]"], r"defense\.parts"),
        (["defense.parts=[bido,bido]"], r"defense\.parts"),
        (["defense.parts=[bido,stack]"], r"defense\.parts"),
        (["defense.parts=[bido,roundin]"], "did you mean rounding"),
        (["defense.options.mid.a1=1"], r"defense\.options\.mid"),
        (["defense.options.bido.alpha=1"], r"defense\.options\.bido has no option 'alpha'"),
        (["defense.options.bido.a1=much"], r"defense\.options\.bido\.a1"),
    ],
)
def test_mistakes_name_the_key(words, match):
    with pytest.raises(UserError, match=match):
        build(plan_cell(compose(["defense=stack", *words])).config["defense"])


def test_every_hook_is_passed_on():
    assert set(Stack.overridden()) == set(HOOKS)
