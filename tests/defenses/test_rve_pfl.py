import dataclasses
import math

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from mibench.access import Ledger
from mibench.attacks.dlg import Dlg
from mibench.defenses.base import Defense
from mibench.defenses.rve_pfl import RvePfl, VariationalEncoder
from mibench.defenses.stack import Stack
from mibench.errors import IncompatibleCellError
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.settings.base import Scene
from mibench.settings.federated import Federated
from mibench.settings.victim import Blueprint
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal
from mibench.training import Batch, Recipe, is_correct

ROUNDS = {"rounds": 2, "clients": 2, "batch_size": 8}


class Silent(RvePfl):
    """The encoder stays with its client, but draws nothing."""

    loss = Defense.loss


class Shared(Silent):
    """A stub: the encoder is one of the global model's parts, and draws nothing."""

    def personal(self, name):
        return False


def cell_of(digits8, workshop, defense, target=LeNet, **setting):
    """Victim and observation of a small federated cell."""
    blueprint = Blueprint(target.__name__, lambda spec: target(spec=spec), Recipe(), {"target": target.__name__})
    key = {"defense": type(defense).__name__, **{k: v for k, v in vars(defense).items() if not k.startswith("_")}}
    scene = Scene(split=digits8, blueprint=blueprint, defense=defense, defense_key=key, workshop=workshop, seed=0)
    federated = Federated(**{**ROUNDS, **setting})
    victim = federated.train(scene, digits8.private, "victim")
    return victim, federated.observe(scene, victim, digits8.private, "gradients", 2, Ledger())


def is_encoder(name):
    return "personal" in name


@pytest.mark.parametrize("local", [{}, {"local_batch_size": 4, "local_epochs": 2}])
def test_no_encoder_leaves_its_client(digits8, workshop, local):
    """With one local step and with four; every client's encoder is its own and moves from round to round."""
    victim, seen = cell_of(digits8, workshop, RvePfl(hidden=32), **local)
    sent = [set(message) for message in seen.view.messages]
    every = set(dict(victim.module.named_parameters()))
    assert all(names == {name for name in every if not is_encoder(name)} for names in sent)
    first, second = (dict(model.named_parameters()) for model in victim.clients)
    nobody = dict(victim.module.named_parameters())
    fresh = cell_of(digits8, workshop, RvePfl(hidden=32), rounds=0, **local)[0]
    begun = dict(fresh.clients[0].named_parameters())
    for name in every:
        if is_encoder(name):
            assert not torch.equal(first[name], second[name])
            assert not torch.equal(first[name], nobody[name])
            assert not torch.equal(first[name], begun[name])
        else:
            assert torch.equal(first[name], second[name])
            assert torch.equal(first[name], nobody[name])
            assert not torch.equal(first[name], begun[name])
    stub = cell_of(digits8, workshop, Shared(hidden=32), **local)[1]
    assert any(is_encoder(name) for name in stub.view.messages[0])


def test_a_client_takes_the_servers_step_at_home(digits8, workshop):
    """By hand: in round 0 every encoder goes down the gradient of its client's batch, by the server's step."""
    fresh, seen = cell_of(digits8, workshop, Silent(hidden=32), Mlp, rounds=0)
    moved = cell_of(digits8, workshop, Silent(hidden=32), Mlp, rounds=1)[0]
    for number, (before, after) in enumerate(zip(fresh.clients, moved.clients, strict=True)):
        own = slice(8 * number, 8 * number + 8)
        loss = nn.functional.cross_entropy(before(seen.secret.x[own]), seen.secret.y[own])
        encoder = {name: value for name, value in before.named_parameters() if is_encoder(name)}
        gradients = torch.autograd.grad(loss, list(encoder.values()))
        for (name, value), gradient in zip(encoder.items(), gradients, strict=True):
            assert torch.allclose(after.get_parameter(name), value - 0.1 * gradient, atol=1e-7)


def test_encoders_come_back_from_the_store(digits8, workshop):
    first, again = (cell_of(digits8, workshop, RvePfl(hidden=32), Mlp)[0] for _ in range(2))
    x = digits8.private.test.x
    assert torch.equal(first.predict_proba(x), again.predict_proba(x))
    assert first.reported == again.reported
    assert 0.5 < first.reported["code_deviation"] < 2


def test_a_stack_leaves_to_the_clients_what_a_part_does():
    name = "normalise.personal.code.weight"
    assert Stack(parts=[Defense(), RvePfl()]).personal(name)
    assert not Stack(parts=[Defense(), Shared()]).personal(name)
    assert not RvePfl().personal("head.weight")


def test_the_code_has_half_its_log_variance_and_a_trunk_that_drops_units():
    mean, deviation = VariationalEncoder.parted(torch.tensor([[0.5, 2 * math.log(3)]]))
    assert mean.tolist() == [[0.5]] and deviation.item() == pytest.approx(3)
    torch.manual_seed(0)
    trunk, x = VariationalEncoder((1, 8, 8), hidden=2000, dropout=0.25).trunk, torch.rand(1, 1, 8, 8)
    active = trunk.eval()(x) > 0
    assert float((trunk.train()(x)[active] == 0).float().mean()) == pytest.approx(0.25, abs=0.05)


def test_two_passes_of_a_client_give_two_codes_and_a_served_answer_is_repeated(digits8):
    torch.manual_seed(0)
    encoder = VariationalEncoder((1, 8, 8), hidden=32, dropout=0.0)
    x = digits8.private.train.x[:4]
    assert encoder(x).shape == x.shape
    assert not torch.equal(encoder.train()(x), encoder(x))
    assert torch.equal(encoder.eval()(x), encoder(x))


@pytest.fixture
def model(digits8):
    torch.manual_seed(0)
    context = type("Context", (), {"spec": digits8.spec})
    return RvePfl(hidden=32).architecture(Mlp(spec=digits8.spec, hidden=(32,)), context).eval()


def test_the_gradient_is_of_one_draw_and_a_stubs_of_none(gradient_of, model, digits8):
    batch = digits8.private.train[torch.arange(8)]

    def gap(defense):
        one, other = (gradient_of(defense, model, batch, seed)["head.weight"] for seed in (0, 1))
        return float((one - other).abs().max())

    assert gap(RvePfl()) > 1e-4
    assert gap(Shared()) == 0
    assert not any(part.training for part in model.modules()), "the client's model is left as it was"


def test_the_penalty_is_the_divergence_of_torch(model, digits8):
    encoder = model.normalise.personal
    encoder.trunk[-1].p = 0.0
    x, y = digits8.private.train.x[:8], digits8.private.train.y[:8]
    mean, deviation = encoder.parted(encoder.code(encoder.trunk(x)))
    expected = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(1).mean()

    def loss(weight):
        torch.manual_seed(0)
        return RvePfl(kl_weight=weight).loss(Batch(model, x, y))

    assert torch.allclose(loss(2.0) - loss(0.0), 2 * expected, rtol=1e-4)


def attacked(digits8, workshop, defense, model_of=None):
    """Decibels of what DLG makes of the first client's image, its label granted; ``model_of`` gives it a model."""
    victim, seen = cell_of(digits8, workshop, defense, rounds=0, batch_size=1)
    first = seen.view.messages[:1]
    view = dataclasses.replace(seen.view, messages=first, client_loss=None)  # the loss is of an encoder none is given
    view = view if model_of is None else view.with_model(model_of(view, victim))
    granted = Knowledge(facts={"labels": seen.secret.y[:1]}, described=("labels",))
    result = Dlg(iterations=20, restarts=1)(view, granted, InstanceGoal(1, 1), seed=0).reconstruction
    return float(-10 * squared_errors(result.values, seen.secret.x[:1]).log10())


def codes_alone(view, victim):
    """The attacker's model who knows of the defense: the classifier without an encoder, whose input is the code."""
    model = victim.module
    model.normalise = model.normalise.inner
    return model


def test_a_message_cannot_be_matched_without_the_encoder(digits8, workshop):
    """Measured: 3.8 dB, and 4.8 where the code is taken for the image; undefended 96.5, the stub 81.7.

    It is the encoder's missing gradient that hides an image, draw or not: without the draw 3.4, for the code 6.7, and
    6.9 for an attacker with the client's own encoder, which none is given.
    """
    defense = RvePfl(hidden=128)
    assert attacked(digits8, workshop, defense) < 12
    assert attacked(digits8, workshop, defense, codes_alone) < 12
    assert attacked(digits8, workshop, Silent(hidden=128)) < 12
    assert attacked(digits8, workshop, Shared(hidden=128)) > 20


def test_clients_learn_together_and_each_answers_its_share(digits8, workshop):
    """Measured: right on 0.978 of the test data, with an encoder that is nobody's on 0.2; the codes' deviation 0.76.

    One step a round instead of five is right on 0.2 after 150 rounds: the noise drowns the code at first.
    """
    local = {"rounds": 80, "batch_size": 64, "local_epochs": 5, "local_lr": 0.3}
    victim, _ = cell_of(digits8, workshop, RvePfl(hidden=64), Mlp, **local)
    test = digits8.private.test
    answers = victim.predict_proba(test.x)
    for number, model in enumerate(victim.clients):
        assert torch.equal(answers[number::2], model.predict_proba(test.x[number::2]))
    assert float(is_correct(victim.predict_proba, test).float().mean()) > 0.9
    assert float(is_correct(victim.module.predict_proba, test).float().mean()) < 0.5
    assert victim.reported["code_deviation"] < 0.95  # nothing keeps it at 1


def test_a_training_of_all_data_together_is_refused(digits8, workshop):
    with pytest.raises(IncompatibleCellError, match=r"setting\.pooled_epochs=0"):
        cell_of(digits8, workshop, RvePfl(hidden=32), pooled_epochs=1)
