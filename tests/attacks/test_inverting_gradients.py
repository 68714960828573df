import dataclasses

import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

CPU = torch.device("cpu")


def observe(split, count=3, batch_size=1, scale=1.0):
    """Returns a view of ``count`` messages of an untrained network with the batches behind them."""
    torch.manual_seed(0)
    model = Mlp(spec=split.spec, hidden=[32])
    rows = torch.randperm(len(split.private.train), generator=torch.Generator().manual_seed(1))[: count * batch_size]
    secret = split.private.train[rows]
    view = GradientsView.of(model, [], batch_size, split.spec, Ledger(), CPU)
    batches = zip(secret.x.split(batch_size), secret.y.split(batch_size), strict=True)
    messages = [{name: scale * value.detach() for name, value in view.gradient(x, y).items()} for x, y in batches]
    return GradientsView.of(model, messages, batch_size, split.spec, Ledger(), CPU), secret


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    options = {"iterations": 200, "tv": 0.0, "restarts": 2, **options}
    return InvertingGradients(**options)(view, knowledge or Knowledge(), goal, seed=0).reconstruction


def errors(result, secret):
    return (result.values - secret.x).square().flatten(1).mean(1)


def test_images_come_back_with_their_label(digits8):
    view, secret = observe(digits8)
    result = attack(view)
    assert float(errors(result, secret).max()) < 1e-4
    assert torch.equal(result.labels, secret.y)


def test_the_length_of_the_gradient_does_not_matter(digits8):
    def found(scale, **options):
        return attack(observe(digits8, scale=scale)[0], iterations=60, **options).values

    torch.testing.assert_close(found(10.0), found(1.0), atol=1e-3, rtol=0)
    assert float((found(10.0, distance="squared") - found(1.0, distance="squared")).abs().max()) > 0.5


def test_a_squared_distance_fails_where_the_length_is_wrong(digits8):
    view, secret = observe(digits8, scale=10.0)
    assert float(errors(attack(view, distance="squared"), secret).min()) > 1e-3
    assert float(errors(attack(view), secret).max()) < 1e-4


def test_wrong_labels_do_not_pass_the_check(digits8):
    view, secret = observe(digits8)
    wrong = Knowledge(facts={"labels": (secret.y + 1) % 5}, described=("labels",))
    assert float(errors(attack(view, wrong), secret).min()) > 1e-3


def test_the_box_is_kept_and_matters(digits8):
    view, secret = observe(digits8)
    free = attack(view, boxed=False, signed=False, iterations=60)
    boxed = attack(view, signed=False, iterations=60)
    assert float(errors(boxed, secret).mean()) != float(errors(free, secret).mean())


def test_total_variation_smooths(digits8):
    def variation(tv):
        images = attack(observe(digits8)[0], tv=tv).values
        return float((images[..., 1:] - images[..., :-1]).abs().mean())

    assert variation(1.0) < 0.7 * variation(0.0)


@pytest.mark.parametrize(
    ("hide", "known"),
    [
        (lambda name, value: value.where(value.abs() > value.abs().quantile(0.7), 0), {"mask_sent": True}),
        (lambda name, value: torch.randn_like(value) * (5 if name.startswith("head") else 0) + value, {"skip_last": 2}),
    ],
    ids=["pruned", "head changed"],
)
def test_who_knows_the_defense_compares_what_it_leaves(digits8, hide, known):
    view, secret = observe(digits8)
    torch.manual_seed(2)
    hidden = [{name: hide(name, value) for name, value in message.items()} for message in view.messages]
    knowledge = Knowledge(facts={"labels": secret.y}, described=("labels",))

    def error(**options):
        return float(errors(attack(dataclasses.replace(view, messages=hidden), knowledge, **options), secret).mean())

    assert error(**known) < 0.5 * error()


def test_a_batch_comes_back_as_a_set_with_its_labels_read_off(digits8):
    view, secret = observe(digits8, count=1, batch_size=2)
    result = attack(view, iterations=600)
    assert sorted(result.labels.tolist()) == sorted(secret.y.tolist())
    distance = torch.cdist(secret.x.flatten(1), result.values.flatten(1)).square() / 64
    assert float(distance.min(1).values.max()) < 0.02


def test_more_starts_are_no_worse_and_hopeless_ones_can_be_dropped(digits8):
    def queries(**options):
        view, secret = observe(digits8, count=1)
        found = errors(attack(view, iterations=100, tolerance=0.0, **options), secret)
        return view.ledger.queries, float(found)

    alone, several, halved = queries(restarts=1), queries(restarts=4), queries(restarts=4, halve_at=[0.2, 0.4])
    assert several[0] == 4 * alone[0]
    assert halved[0] < 0.5 * several[0]
    assert max(several[1], halved[1]) < 1e-3


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match=r"attack\.label_rule"):
        InvertingGradients(label_rule="guess")
