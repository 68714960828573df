import dataclasses

import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.attacks.dlg import Dlg
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal

CPU = torch.device("cpu")


class FirstOrderView(GradientsView):
    """A stub whose gradients cannot be differentiated again."""

    def gradients(self, x, y):
        return {name: value.detach() + 0 * (x.sum() + y.sum()) for name, value in super().gradients(x, y).items()}


def observe(split, count, batch_size=1, kind=GradientsView):
    """Returns a view of ``count`` messages of an untrained LeNet with the batches behind them."""
    torch.manual_seed(0)
    model = LeNet(spec=split.spec, channels=8)
    rows = torch.randperm(len(split.private.train), generator=torch.Generator().manual_seed(1))[: count * batch_size]
    secret = split.private.train[rows]
    view = GradientsView.of(model, [], batch_size, split.spec, Ledger(), CPU)
    batches = zip(secret.x.split(batch_size), secret.y.split(batch_size), strict=True)
    messages = [{name: value.detach() for name, value in view.gradient(x, y).items()} for x, y in batches]
    return kind.of(model, messages, batch_size, split.spec, Ledger(), CPU), secret


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return Dlg(**options)(view, knowledge or Knowledge(), goal, seed=0)


def exact(result, secret):
    """Returns how many examples came back with a mean squared error below 1e-6 and the right label."""
    error = (result.values - secret.x).square().flatten(1).mean(1)
    return int(((error < 1e-6) & (result.labels == secret.y)).sum())


def test_single_images_come_back_to_the_pixel_with_their_label(digits8):
    view, secret = observe(digits8, count=10)
    assert exact(attack(view, iterations=80, restarts=1).reconstruction, secret) >= 7


def test_an_attack_without_second_order_gradients_recovers_nothing(digits8):
    view, secret = observe(digits8, count=10, kind=FirstOrderView)
    assert exact(attack(view, iterations=80, restarts=1).reconstruction, secret) == 0


def test_other_clients_images_do_not_pass_the_check(digits8):
    view, secret = observe(digits8, count=4)
    result = attack(view, iterations=30, restarts=1).reconstruction
    moved = dataclasses.replace(result, values=result.values.roll(1, 0), labels=result.labels.roll(1, 0))
    assert exact(moved, secret) == 0


def test_granted_labels_are_not_searched(digits8):
    view, secret = observe(digits8, count=2)
    granted = Knowledge(facts={"labels": secret.y}, described=("labels",))
    result = attack(view, granted, iterations=40, restarts=2).reconstruction
    assert torch.equal(result.labels, secret.y)
    assert exact(result, secret) == 2
    wrong = Knowledge(facts={"labels": (secret.y + 1) % 5}, described=("labels",))
    assert exact(attack(view, wrong, iterations=40, restarts=2).reconstruction, secret) == 0


def test_a_batch_comes_back_as_a_set(digits8):
    view, secret = observe(digits8, count=1, batch_size=2)
    result = attack(view, iterations=100, restarts=2, line_search=True).reconstruction
    assert sorted(result.labels.tolist()) == sorted(secret.y.tolist())
    distance = torch.cdist(secret.x.flatten(1), result.values.flatten(1)).square() / 64
    assert float(distance.min(1).values.max()) < 1e-4


def test_further_starts_end_where_one_has_matched(digits8):
    def queries(**options):
        view, _ = observe(digits8, count=1)
        return attack(view, iterations=60, restarts=4, **options).ledger["queries"]["optimise"]

    assert queries() < 0.5 * queries(matched=0.0, tolerance=0.0)


def test_a_spent_budget_leaves_the_best_so_far(digits8):
    view, _ = observe(digits8, count=3)
    spent = attack(view, iterations=60, restarts=1).ledger["queries"]["optimise"]
    view, _ = observe(digits8, count=3)
    view.ledger.budget = spent // 3
    result = attack(view, iterations=60, restarts=1)
    assert "budget" in result.stopped
    assert not bool(result.reconstruction.missing.any())


def test_a_message_comes_out_the_same_whoever_else_is_attacked(digits8):
    view, _ = observe(digits8, count=3)
    together = attack(view, iterations=8, restarts=2).reconstruction
    alone = attack(dataclasses.replace(view, messages=view.messages[:1]), iterations=8, restarts=2).reconstruction
    torch.testing.assert_close(together.values[:1], alone.values, atol=2e-3, rtol=0)


def test_with_a_line_search_every_start_descends(digits8):
    view, secret = observe(digits8, count=10)
    assert exact(attack(view, iterations=80, restarts=1, line_search=True).reconstruction, secret) >= 9


def test_a_mistaken_option_is_said_before_anything_runs(make_cell):
    for option, words in (("restarts=0", "attack.restarts"), ("iterations=0", "attack.iterations")):
        with pytest.raises(UserError, match=words):
            make_cell("attack=dlg", f"attack.{option}")
