import dataclasses
from functools import partial

import pytest
import torch
from exact import inside, sent_of, squared_distance

from mibench.attacks.dlg import Dlg
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.input_space import Pixels
from mibench.optim.row_lbfgs import Lbfgs
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal

LENET = partial(LeNet, channels=8)


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return Dlg(**options)(view, knowledge or Knowledge(), goal, seed=0)


def test_what_descends_is_the_squared_distance_from_normal_starts_of_their_own(digits_view):
    view, _ = digits_view(LENET, 2)

    def look(descent, objective, starts, found, steps):
        inputs, logits = starts
        assert inputs.shape == (6, 1, 1, 8, 8) and logits.shape == (6, 1, view.spec.classes)
        assert all(len(one.unique(dim=0)) == 6 and abs(float(one.std()) - 1) < 0.3 for one in starts)
        ours = view.updates(Pixels.of(view).to_inputs(inputs), logits.softmax(-1))
        for value in objective(torch.arange(6), *starts):
            torch.testing.assert_close(value, squared_distance(ours, sent_of(view, 3)))
        assert (descent.iterations, descent.inner, descent.lr, descent.history) == (300, 20, 1.0, 100)
        assert (descent.dropping.settled, descent.dropping.tolerance) == (1e-6, 1e-10)

    inside(Lbfgs, "minimise", lambda: attack(view, restarts=3), look)


def test_single_images_come_back_to_the_pixel_with_their_label(digits_view, exact):
    view, secret = digits_view(LENET, 6)
    result = attack(view, iterations=12, restarts=1).reconstruction
    assert exact(result, secret) >= 4
    moved = dataclasses.replace(result, values=result.values.roll(1, 0), labels=result.labels.roll(1, 0))
    assert exact(moved, secret) == 0


def test_an_attack_without_second_order_gradients_recovers_nothing(digits_view, first_order_view, exact):
    view, secret = digits_view(LENET, 6, kind=first_order_view)
    assert exact(attack(view, iterations=12, restarts=1).reconstruction, secret) == 0


def test_granted_labels_are_not_searched(digits_view, exact):
    view, secret = digits_view(LENET, 2)
    granted = Knowledge(facts={"labels": secret.y}, described=("labels",))
    result = attack(view, granted, iterations=8, restarts=2).reconstruction
    assert torch.equal(result.labels, secret.y)
    assert exact(result, secret) == 2
    wrong = Knowledge(facts={"labels": (secret.y + 1) % 5}, described=("labels",))
    assert exact(attack(view, wrong, iterations=8, restarts=2).reconstruction, secret) == 0


def test_a_batch_comes_back_as_a_set(digits_view, nearest_errors):
    view, secret = digits_view(LENET, 1, batch=2)
    result = attack(view, iterations=15, restarts=2, line_search=True).reconstruction
    assert sorted(result.labels.tolist()) == sorted(secret.y.tolist())
    assert float(nearest_errors(result, secret).max()) < 1e-4


def test_further_starts_end_where_one_has_matched(digits_view):
    def queries(**options):
        view, _ = digits_view(LENET, 1)
        return attack(view, iterations=12, restarts=4, **options).ledger["queries"]["optimise"]

    assert queries() < 0.5 * queries(matched=0.0, tolerance=0.0)


def test_a_spent_budget_leaves_the_best_so_far(digits_view):
    view, _ = digits_view(LENET, 3)
    spent = attack(view, iterations=12, restarts=1).ledger["queries"]["optimise"]
    view, _ = digits_view(LENET, 3)
    view.ledger.budget = spent // 3
    result = attack(view, iterations=12, restarts=1)
    assert "budget" in result.stopped
    assert not bool(result.reconstruction.missing.any())


def test_a_message_comes_out_the_same_whoever_else_is_attacked(digits_view):
    view, _ = digits_view(LENET, 3)
    together = attack(view, iterations=8, restarts=2).reconstruction
    alone = attack(dataclasses.replace(view, messages=view.messages[:1]), iterations=8, restarts=2).reconstruction
    torch.testing.assert_close(together.values[:1], alone.values, atol=2e-3, rtol=0)


def test_with_a_line_search_every_start_descends(digits_view, exact):
    view, secret = digits_view(LENET, 6)
    assert exact(attack(view, iterations=12, restarts=1, line_search=True).reconstruction, secret) == 6


def test_a_mistaken_option_is_said_before_anything_runs(make_cell):
    for option, words in (("restarts=0", "attack.restarts"), ("iterations=0", "attack.iterations")):
        with pytest.raises(UserError, match=words):
            make_cell("attack=dlg", f"attack.{option}")
