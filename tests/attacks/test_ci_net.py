import dataclasses

import torch
from exact import cosine_distance, inside, sent_of, variation

from mibench.attacks.ci_net import CiNet
from mibench.knowledge import Knowledge
from mibench.nn.stacked import StackedNetworks
from mibench.optim.row_adam import Adam
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    options = {"iterations": 60, "width": 16, **options}
    return CiNet(**options)(view, knowledge or Knowledge(), goal, seed=0).reconstruction


def test_what_descends_is_the_cosine_and_the_total_variation_of_the_images(digits_view):
    view, secret = digits_view(LeNet, 2)

    def look(adam, objective, weights, found, steps):
        value, score, images = objective(torch.arange(4), *weights)  # two starts of each message
        ours = view.updates(images, secret.y.repeat_interleave(2)[:, None])
        torch.testing.assert_close(score, cosine_distance(ours, sent_of(view, 2)), atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(value, score + 0.7 * variation(images[:, 0]))
        assert adam.signed and adam.lr == 1e-3
        assert all(len(one.unique(dim=0)) == 4 for one in weights if one[0].unique().numel() > 1), (
            "each has its own weights"
        )
        assert weights[0].shape[2] == 8  # of 4 channels it has 8,808 parameters, of 8 it has 18,777
        assert sum(one[0].numel() for one in weights) > 200 * 64

    options = {"tv": 0.7, "restarts": 2, "width": 4, "overparameterisation": 200.0}
    inside(Adam, "minimise", lambda: attack(view, **options), look)


def test_the_weights_of_an_untrained_generator_make_the_image(digits_view, gain, gradient_distances):
    view, secret = digits_view(LeNet, 2)
    result = attack(view)
    assert float(gradient_distances(view, result.values, result.labels).max()) < 1e-3
    assert float(gain(result.values, secret).min()) > 4
    assert torch.equal(result.labels, secret.y)


def test_unless_the_weights_are_searched_they_make_nothing(digits_view, first_order_view, gain, gradient_distances):
    view, secret = digits_view(LeNet, 2)
    still = attack(view, lr=1e-9)
    assert float(gradient_distances(view, still.values, still.labels).min()) > 1e-3
    assert float(gain(still.values, secret).max()) < 0
    view, secret = digits_view(LeNet, 2, kind=first_order_view)
    assert float(gain(attack(view).values, secret).max()) < 0


def test_a_batch_comes_back_as_a_set(digits_view, nearest_errors):
    view, secret = digits_view(LeNet, 1, batch=2)
    result = attack(view, iterations=150)
    assert sorted(result.labels.tolist()) == sorted(secret.y.tolist())
    assert float(nearest_errors(result, secret).max()) < 0.01


def test_wrong_labels_do_not_pass_the_check(digits_view, gain):
    view, secret = digits_view(LeNet, 2)
    wrong = Knowledge(facts={"labels": (secret.y + 1) % 5}, described=("labels",))
    result = attack(view, wrong)
    assert torch.equal(result.labels, (secret.y + 1) % 5)
    assert float(gain(result.values, secret).max()) < 4


def test_the_noise_never_changes_and_every_weight_does(monkeypatch, digits_view):
    seen = []
    call = StackedNetworks.__call__

    def record(self, weights, x):
        seen.append((x.clone(), [weight.detach().clone() for weight in weights]))
        return call(self, weights, x)

    monkeypatch.setattr(StackedNetworks, "__call__", record)
    view, _ = digits_view(LeNet, 2)
    attack(view, iterations=3)
    (first, before), *_, (last, after) = seen
    assert first.shape == (2, 1, 128) and not torch.equal(first[0], first[1])
    assert all(torch.equal(x, first) for x, _ in seen) and last is not first
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert sum(weight[0].numel() for weight in before) > 4 * 64
    assert not torch.equal(before[0][0], before[0][1])


def test_total_variation_smooths(digits_view):
    def variation(tv):
        images = attack(digits_view(LeNet, 1)[0], iterations=40, tv=tv).values
        return float((images[..., 1:] - images[..., :-1]).abs().mean())

    assert variation(10.0) < 0.7 * variation(0.0)


def test_a_message_comes_out_the_same_whoever_else_is_attacked(digits_view):
    view, _ = digits_view(LeNet, 3)
    first, second, third = view.messages
    values = attack(view, iterations=10).values
    others = attack(dataclasses.replace(view, messages=[first, third, second]), iterations=10).values
    torch.testing.assert_close(others[0], values[0], atol=1e-6, rtol=0)
    assert float((others[1] - values[1]).abs().max()) > 0.01


def test_a_spent_budget_leaves_the_best_so_far(spend):
    spend(attack, 20)
