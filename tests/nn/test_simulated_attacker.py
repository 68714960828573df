import pytest
import torch
from torch.nn.functional import mse_loss

from mibench.nn.simulated_attacker import SimulatedAttacker
from mibench.targets.cnn import Cnn
from mibench.training import Recipe, Training


class Awake(SimulatedAttacker):
    """A stub: the decoder is not held still in the model's step."""

    def error(self, features, images):
        return self._error(features, images)


def attacker_of(digits8, kind=SimulatedAttacker):
    torch.manual_seed(0)
    model = Cnn(spec=digits8.spec, width=4)
    training = Training(model, digits8.private.train, Recipe(), 0, torch.device("cpu"))
    attacker = kind(training, mse_loss, lr=3e-3, body="res_norm", blocks=2, channels=8)
    return model.train(), attacker, digits8.private.train.x[:64]


def held(module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def moved(before, module):
    return {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize(("kind", "still"), [(SimulatedAttacker, True), (Awake, False)])
def test_in_turn_one_learns_and_the_other_is_held_still(digits8, kind, still):
    model, attacker, x = attacker_of(digits8, kind)
    features = model.client(x)
    weights, decoder = held(model), held(attacker.decoder)
    attacker.learn(features, x)
    assert not moved(weights, model) and all(p.grad is None for p in model.parameters())
    assert {"image.weight", "blocks.0.0.weight", "blocks.0.1.running_mean"} <= moved(decoder, attacker.decoder)
    decoder = held(attacker.decoder)
    gradient = [None if p.grad is None else p.grad.clone() for p in attacker.decoder.parameters()]
    attacker.error(features, x).backward()
    after = [p.grad for p in attacker.decoder.parameters()]
    assert all(p.grad.abs().max() > 0 for p in model.stages[0][0].parameters() if p.ndim > 1)
    untouched = not moved(decoder, attacker.decoder) and all(map(torch.equal, gradient, after))
    assert untouched == still


def test_it_draws_nothing_and_leaves_the_model_as_it_was(digits8):
    torch.manual_seed(3)
    expected = torch.rand(1)
    model, *_ = attacker_of(digits8)
    state = held(Cnn(spec=digits8.spec, width=4))
    assert set(state) == set(held(model)) and float(model.stages[0][1].running_mean.abs().max()) == 0
    assert model.training
    torch.manual_seed(3)
    rng = torch.get_rng_state()
    training = Training(model, digits8.private.train, Recipe(), 0, torch.device("cpu"))
    SimulatedAttacker(training, mse_loss, lr=1e-3, body="custom", blocks=1, channels=8)
    assert torch.equal(torch.get_rng_state(), rng) and torch.equal(torch.rand(1), expected)


def test_it_learns_and_shrunken_features_do_not_help(digits8):
    """After 60 steps, features a thousandth as large are decoded as well."""
    model, attacker, x = attacker_of(digits8)
    features = model.client(x).detach()
    start = float(attacker.error(features, x))
    for _ in range(60):
        attacker.learn(features, x)
    end = float(attacker.error(features, x))
    assert end < start / 2
    assert float(attacker.error(features / 1000 + 5, x)) == pytest.approx(end, rel=0.05)
    raw = attacker.loss(attacker.decoder(features / 1000 + 5), x)
    assert float(raw) > 1.5 * end, "without standardisation they would"


def test_dead_features_have_a_finite_gradient(digits8):
    _, attacker, x = attacker_of(digits8)
    features = torch.zeros(64, 4, 4, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(attacker.error(features, x), features)
    assert bool(gradient.isfinite().all())
