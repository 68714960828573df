import dataclasses
import itertools

import pytest
import torch

from mibench.access import LocalTraining
from mibench.attacks import learning_to_invert
from mibench.attacks.base import Reconstruction
from mibench.attacks.learning_to_invert import LearningToInvert, Reader, cosine_gaussian, matched_error
from mibench.data import Examples
from mibench.defenses.base import Client
from mibench.defenses.gradient_noise import GradientNoise
from mibench.defenses.gradient_pruning import GradientPruning
from mibench.errors import IncompatibleCellError, UserError
from mibench.knowledge import Knowledge
from mibench.nn.batch_norm import use_batch_statistics
from mibench.optim.selection import Best
from mibench.targets.cnn import Cnn
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal


class Shuffled(LearningToInvert):
    """A stub: every public image is paired with the gradient of another one."""

    def gradients(self, view, reader, x, what):
        found = super().gradients(view, reader, x, what)
        return found[torch.randperm(len(found), generator=torch.Generator().manual_seed(0))]


def sign(gradient, client):
    return {name: value.sign() for name, value in gradient.items()}


@pytest.fixture
def observe(client_view, digits8):
    """Makes a view of messages, with the images ``(count, batch, 64)`` and class ids behind them."""

    def make(count=100, batch=1, defend=None, **more):
        torch.manual_seed(0)
        model, test, number = Mlp(spec=digits8.spec, hidden=[16]), digits8.private.test, itertools.count()

        def change(message):
            return defend(message, Client((one := next(number)), 0, 2, model, None, seed=one)) if defend else message

        secret = test[torch.randperm(len(test), generator=torch.Generator().manual_seed(1))[: count * batch]]
        view = client_view(model, secret, batch, change, **more)
        return view, secret.x.flatten(1).unflatten(0, (-1, batch)), secret.y

    return make


def relative_error(split, observed, method=LearningToInvert, public=None, **options):
    """Returns the error divided by that of the mean image, in-distribution: the attacker owns 700 private images."""
    view, secret, _ = observed
    own = split.private.train[torch.arange(min(700, len(split.private.train)))] if public is None else public
    options = {"hidden": 128, "epochs": 100, "lr": 2e-3, "batch": 1024, "synthetic": False, **options}
    goal = InstanceGoal(len(view.messages), view.batch_size)
    result = method(**options)(view, Knowledge(public_data=own), goal, seed=0).reconstruction
    made = result.values.flatten(1).unflatten(0, (-1, view.batch_size))
    return float(matched_error(made, secret) / (own.x.mean(0).flatten() - secret).square().mean())


def test_the_best_epoch_is_kept_and_the_rate_falls_once(digits8, observe, monkeypatch):
    """With a step that is far too large the first epochs are the best ones, and the perceptron is theirs."""
    offered, rates, step = [], [], torch.optim.Adam.step

    class Recorded(Best):
        def offer(self, variables, loss):
            offered.append((float(loss), [one.detach().clone() for one in variables]))
            super().offer(variables, loss)

    def stepped(self, *how):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *how)

    monkeypatch.setattr(learning_to_invert, "Best", Recorded)
    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    view, _, _ = observe(count=4)
    method = LearningToInvert(hidden=32, epochs=8, lr=0.3, batch=1024, synthetic=False)
    knowledge = Knowledge(public_data=digits8.public)
    networks = method.networks(view, knowledge)
    goal, kept = InstanceGoal(4, 1), {}
    monkeypatch.setattr(
        LearningToInvert,
        "reconstruct",
        lambda self, view, knowledge, goal, networks: kept.update(networks) or blank(view, goal),
    )
    method(view, knowledge, goal, seed=0)
    losses = [loss for loss, _ in offered]
    assert losses.index(min(losses)) < 7 and len(losses) == 8 and networks
    best = offered[losses.index(min(losses))][1]
    assert all(torch.equal(one, other) for one, other in zip(kept["inverter"].parameters(), best, strict=True))
    assert rates == [0.3] * 6 + [pytest.approx(0.03)] * 2


def blank(view, goal):
    return Reconstruction(view.spec.blank(4), goal.target, torch.zeros(4, dtype=torch.long))


@pytest.mark.parametrize(
    ("defend", "options", "limit"),
    [
        (None, {}, 0.5),
        (sign, {"leak": "sign"}, 0.5),
        (GradientNoise(std=0.1).update, {"leak": "gauss", "std": 0.1}, 0.9),
        (GradientPruning(keep=0.1, scope="all").update, {"leak": "prune", "keep_": 0.1}, 0.5),
    ],
    ids=["none", "sign", "noise", "pruning"],
)
def test_images_come_back_from_defended_gradients(digits8, defend, options, limit, observe):
    assert relative_error(digits8, observe(defend=defend), **options) < limit


def test_gradients_of_other_images_teach_nothing(digits8, observe):
    assert relative_error(digits8, observe(), method=Shuffled) > 0.95


def test_an_attacker_who_does_not_know_of_the_defense_does_worse(digits8, observe):
    signs = observe(defend=sign)
    assert relative_error(digits8, signs) > 1.5 * relative_error(digits8, signs, leak="sign")
    noisy = observe(defend=GradientNoise(std=0.1).update)
    assert relative_error(digits8, noisy) > 1.2 * relative_error(digits8, noisy, leak="gauss")


def test_images_of_other_classes_do_and_synthetic_ones_help(digits8, observe):
    observed = observe()
    helped = relative_error(digits8, observed, public=digits8.public, synthetic=True)
    assert helped < 0.4
    assert helped < 0.7 * relative_error(digits8, observed, public=digits8.public)


def test_hashed_gradients_say_almost_as_much(digits8, observe):
    observed = observe()
    assert relative_error(digits8, observed, hash_dim=400) < 0.5
    assert relative_error(digits8, observed, method=Shuffled, hash_dim=400) > 0.95


def test_a_batch_comes_back_as_a_set(digits8, observe):
    observed = observe(count=40, batch=2)
    options = {"batch": 64, "epochs": 30}
    assert relative_error(digits8, observed, **options) < 0.75
    assert relative_error(digits8, observed, method=Shuffled, **options) > 0.9


def test_the_matching_is_the_best_of_all_orders():
    draws = torch.Generator().manual_seed(0)
    made, truth = torch.rand(5, 4, 7, generator=draws), torch.rand(5, 4, 7, generator=draws)
    best = [
        min(float((one[list(order)] - other).square().mean()) for order in itertools.permutations(range(4)))
        for one, other in zip(made, truth, strict=True)
    ]
    torch.testing.assert_close(float(matched_error(made, truth)), sum(best) / 5, rtol=1e-5, atol=0)
    assert float(matched_error(truth[:, [2, 0, 3, 1]], truth)) == 0


def test_noise_of_a_bucket_is_that_of_the_entries_in_it():
    torch.manual_seed(0)
    reader = Reader(1000, 10)
    noise = torch.randn(4000, 1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(reader.hashed(noise).std(0), reader.spread, rtol=0.05, atol=0)


def test_an_entry_falls_into_one_bucket_with_a_random_sign():
    torch.manual_seed(0)
    entries = Reader(1000, 10).hashed(torch.eye(1000))
    assert bool((entries.abs().sort(1).values == torch.tensor([0.0] * 9 + [1.0])).all())
    assert 0.4 < float((entries.sum(1) < 0).float().mean()) < 0.6


def test_synthetic_images_have_the_coefficients_moments(digits8):
    made = cosine_gaussian(digits8.public.x, torch.Generator().manual_seed(0))
    assert made.shape == digits8.public.x.shape
    assert float(made.min()) >= 0
    assert float(made.max()) <= 1
    assert float((made.mean(0) - digits8.public.x.mean(0)).abs().max()) < 0.2


def test_the_answer_depends_on_no_other_message_and_names_the_labels(digits8, observe):
    view, _, labels = observe(count=4)
    alone = dataclasses.replace(view, messages=view.messages[:1])
    knowledge, method = Knowledge(public_data=digits8.public), LearningToInvert(hidden=8, epochs=2)
    whole = method(view, knowledge, InstanceGoal(4, 1), seed=0)
    assert torch.equal(whole.reconstruction.labels, labels)
    assert whole.ledger["queries"]["prepare"] > len(digits8.public)  # and as many synthetic ones as train
    one = method(alone, knowledge, InstanceGoal(1, 1), seed=0).reconstruction
    torch.testing.assert_close(one.values[0], whole.reconstruction.values[0])


def test_what_is_no_mean_of_examples_is_refused(digits8, observe, client_view):
    def prepared(view, **options):
        LearningToInvert(**options)(view, Knowledge(public_data=digits8.public), InstanceGoal(1, 2), seed=0)

    steps = observe(count=1, batch=2, deltas=True, local=LocalTraining(2))[0]
    with pytest.raises(IncompatibleCellError, match=r"setting\.batch_size=1"):
        prepared(steps)
    torch.manual_seed(0)
    model = Cnn(spec=digits8.spec, width=4)
    use_batch_statistics(model)
    with pytest.raises(IncompatibleCellError, match=r"setting\.batch_norm=eval"):
        prepared(client_view(model, digits8.private.test[torch.arange(2)], 2))
    with pytest.raises(UserError, match=r"attack\.hash_dim=null"):
        prepared(observe(count=1, batch=2)[0], leak="sign", hash_dim=10)


def test_too_few_public_images_are_refused(digits8, observe):
    view = observe(count=1, batch=4)[0]
    few = Examples(digits8.public.x[:6], digits8.public.y[:6])
    with pytest.raises(UserError, match="8 public images"):
        LearningToInvert()(view, Knowledge(public_data=few), InstanceGoal(1, 4), seed=0)
