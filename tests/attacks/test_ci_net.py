import dataclasses

import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.attacks.ci_net import CiNet
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.nn.stacked import StackedNetworks
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal

CPU = torch.device("cpu")


class FirstOrderView(GradientsView):
    """A stub whose gradients cannot be differentiated again."""

    def gradients(self, x, y):
        return {name: value.detach() + 0 * x.sum() for name, value in super().gradients(x, y).items()}


def observe(split, count=2, batch_size=1, kind=GradientsView):
    """Returns a view of ``count`` messages of an untrained LeNet with the batches behind them."""
    torch.manual_seed(0)
    model = LeNet(spec=split.spec)
    rows = torch.randperm(len(split.private.train), generator=torch.Generator().manual_seed(1))[: count * batch_size]
    secret = split.private.train[rows]
    view = GradientsView.of(model, [], batch_size, split.spec, Ledger(), CPU)
    batches = zip(secret.x.split(batch_size), secret.y.split(batch_size), strict=True)
    messages = [{name: value.detach() for name, value in view.gradient(x, y).items()} for x, y in batches]
    return kind.of(model, messages, batch_size, split.spec, Ledger(), CPU), secret


def attack(view, knowledge=None, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    options = {"iterations": 60, "width": 16, **options}
    return CiNet(**options)(view, knowledge or Knowledge(), goal, seed=0).reconstruction


def gain(images, split, secret):
    """Returns by how many dB images are closer to the secret than the mean of all private images is."""

    def psnr(x):
        return -10 * (x - secret.x).square().flatten(1).mean(1).log10()

    return psnr(images) - psnr(split.private.train.x.mean(0))


def distances(view, result):
    """Returns the cosine distance between every message and the gradient of what was reconstructed."""
    flat = [torch.cat([part.flatten() for part in message.values()]) for message in view.messages]
    batches = zip(result.values.split(view.batch_size), result.labels.split(view.batch_size), strict=True)
    ours = [torch.cat([part.flatten() for part in view.gradient(x, y).values()]) for x, y in batches]
    return 1 - torch.cosine_similarity(torch.stack(flat), torch.stack(ours).detach())


def test_the_weights_of_an_untrained_generator_make_the_image(digits8):
    view, secret = observe(digits8)
    result = attack(view)
    assert float(distances(view, result).max()) < 1e-3
    assert float(gain(result.values, digits8, secret).min()) > 4
    assert torch.equal(result.labels, secret.y)


def test_generators_whose_weights_are_not_searched_make_nothing(digits8):
    view, secret = observe(digits8)
    still = attack(view, lr=1e-9)
    assert float(distances(view, still).min()) > 1e-3
    assert float(gain(still.values, digits8, secret).max()) < 0
    view, secret = observe(digits8, kind=FirstOrderView)
    assert float(gain(attack(view).values, digits8, secret).max()) < 0


def test_a_batch_comes_back_as_a_set(digits8):
    view, secret = observe(digits8, count=1, batch_size=2)
    result = attack(view, iterations=150)
    assert sorted(result.labels.tolist()) == sorted(secret.y.tolist())
    distance = torch.cdist(secret.x.flatten(1), result.values.flatten(1)).square() / 64
    assert float(distance.min(1).values.max()) < 0.01


def test_wrong_labels_do_not_pass_the_check(digits8):
    view, secret = observe(digits8)
    wrong = Knowledge(facts={"labels": (secret.y + 1) % 5}, described=("labels",))
    result = attack(view, wrong)
    assert torch.equal(result.labels, (secret.y + 1) % 5)
    assert float(gain(result.values, digits8, secret).max()) < 4


def test_the_noise_never_changes_and_every_weight_does(digits8, monkeypatch):
    seen = []
    call = StackedNetworks.__call__

    def record(self, weights, x):
        seen.append((x.clone(), [weight.detach().clone() for weight in weights]))
        return call(self, weights, x)

    monkeypatch.setattr(StackedNetworks, "__call__", record)
    view, _ = observe(digits8)
    attack(view, iterations=3)
    (first, before), *_, (last, after) = seen
    assert first.shape == (2, 1, 128) and not torch.equal(first[0], first[1])
    assert all(torch.equal(x, first) for x, _ in seen) and last is not first
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert sum(weight[0].numel() for weight in before) > 4 * 64
    assert not torch.equal(before[0][0], before[0][1])


def test_total_variation_smooths(digits8):
    def variation(tv):
        images = attack(observe(digits8, count=1)[0], iterations=40, tv=tv).values
        return float((images[..., 1:] - images[..., :-1]).abs().mean())

    assert variation(10.0) < 0.7 * variation(0.0)


def test_a_message_comes_out_the_same_whoever_else_is_attacked(digits8):
    view, _ = observe(digits8, count=3)
    first, second, third = view.messages
    values = attack(view, iterations=10).values
    others = attack(dataclasses.replace(view, messages=[first, third, second]), iterations=10).values
    torch.testing.assert_close(others[0], values[0], atol=1e-6, rtol=0)
    assert float((others[1] - values[1]).abs().max()) > 0.01


def test_a_spent_budget_leaves_the_best_so_far(digits8):
    view, _ = observe(digits8)
    view.ledger.budget = 20
    result = attack(view)
    assert view.ledger.queries == 20
    assert not bool(result.missing.any())


def test_an_unknown_rule_is_refused():
    with pytest.raises(UserError, match=r"attack\.label_rule"):
        CiNet(label_rule="guess")
