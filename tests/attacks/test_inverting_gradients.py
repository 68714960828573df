import dataclasses
from functools import partial

import pytest
import torch
from exact import cosine_distance, inside, variation

from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.optim.input_space import Pixels
from mibench.optim.row_adam import Adam
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

MLP = partial(Mlp, hidden=[32])


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    options = {"iterations": 200, "tv": 0.0, "restarts": 2, **options}
    return InvertingGradients(**options)(view, knowledge or Knowledge(), goal, seed=0).reconstruction


def lengthened(factor):
    """Returns what makes every entry of a message so many times as large."""
    return lambda message: {name: factor * value for name, value in message.items()}


def test_what_descends_is_the_formula(digits_view):
    """One cosine over all tensors but the last ones, and total variation; signs, steps that fall by tens, the box."""
    view, secret = digits_view(partial(Mlp, hidden=[32]), 2)
    pixels = Pixels.of(view)

    def look(adam, objective, start, found, steps, project):
        u = 3 * torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        ours = view.updates(pixels.to_inputs(u), secret.y[:, None])
        sent = {name: torch.stack([one[name] for one in view.messages]) for name in list(view.messages[0])[:-2]}
        value, score = objective(torch.arange(2), u)
        torch.testing.assert_close(score, cosine_distance(ours, sent))
        torch.testing.assert_close(value, score + 0.7 * variation(u[:, 0]))
        images = pixels.to_inputs(project(torch.arange(2), [u])[0])
        torch.testing.assert_close(images, pixels.to_inputs(u).clamp(0, 1))
        assert adam.signed and adam.dropping.halve_at == (0.5,)
        return [adam.rate(step) for step in (0, 299, 300, 500, 700)]

    method = InvertingGradients(tv=0.7, skip_last=2, iterations=800, lr=0.1, halve_at=(0.5,))
    goal = InstanceGoal(2, 1)
    rates = inside(Adam, "minimise", lambda: method(view, Knowledge(), goal, seed=0), look)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])


def test_images_come_back_with_their_label(digits_view):
    view, secret = digits_view(MLP, 3)
    result = attack(view)
    assert float(squared_errors(result.values, secret.x).max()) < 1e-4
    assert torch.equal(result.labels, secret.y)


def test_the_length_of_the_gradient_does_not_matter(digits_view):
    def found(scale, **options):
        return attack(digits_view(MLP, 3, change=lengthened(scale))[0], iterations=60, **options).values

    torch.testing.assert_close(found(10.0), found(1.0), atol=1e-3, rtol=0)
    assert float((found(10.0, distance="squared") - found(1.0, distance="squared")).abs().max()) > 0.5


def test_a_squared_distance_fails_where_the_length_is_wrong(digits_view):
    view, secret = digits_view(MLP, 3, change=lengthened(10.0))
    assert float(squared_errors(attack(view, distance="squared").values, secret.x).min()) > 1e-3
    assert float(squared_errors(attack(view).values, secret.x).max()) < 1e-4


def test_wrong_labels_do_not_pass_the_check(digits_view):
    view, secret = digits_view(MLP, 3)
    wrong = Knowledge(facts={"labels": (secret.y + 1) % 5}, described=("labels",))
    assert float(squared_errors(attack(view, wrong).values, secret.x).min()) > 1e-3


def test_the_box_is_kept_and_matters(digits_view):
    view, secret = digits_view(MLP, 3)
    free = attack(view, boxed=False, signed=False, iterations=60)
    boxed = attack(view, signed=False, iterations=60)
    assert float(squared_errors(boxed.values, secret.x).mean()) != float(squared_errors(free.values, secret.x).mean())


def test_total_variation_smooths(digits_view):
    def variation(tv):
        images = attack(digits_view(MLP, 3)[0], tv=tv).values
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
def test_who_knows_the_defense_compares_what_it_leaves(hide, known, digits_view):
    view, secret = digits_view(MLP, 3)
    torch.manual_seed(2)
    hidden = [{name: hide(name, value) for name, value in message.items()} for message in view.messages]
    knowledge = Knowledge(facts={"labels": secret.y}, described=("labels",))

    def error(**options):
        result = attack(dataclasses.replace(view, messages=hidden), knowledge, **options)
        return float(squared_errors(result.values, secret.x).mean())

    assert error(**known) < 0.5 * error()


def test_a_batch_comes_back_as_a_set_with_its_labels_read_off(digits_view, nearest_errors):
    view, secret = digits_view(MLP, 1, batch=2)
    result = attack(view, iterations=600)
    assert sorted(result.labels.tolist()) == sorted(secret.y.tolist())
    assert float(nearest_errors(result, secret).max()) < 0.02


def test_more_starts_are_no_worse_and_hopeless_ones_can_be_dropped(digits_view):
    def queries(**options):
        view, secret = digits_view(MLP, 1)
        found = squared_errors(attack(view, iterations=100, tolerance=0.0, **options).values, secret.x)
        return view.ledger.queries, float(found)

    alone, several, halved = queries(restarts=1), queries(restarts=4), queries(restarts=4, halve_at=[0.2, 0.4])
    assert several[0] == 4 * alone[0]
    assert halved[0] < 0.5 * several[0]
    assert max(several[1], halved[1]) < 1e-3
