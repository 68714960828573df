import dataclasses
from functools import partial

import pytest
import torch
from exact import inside, variation

from mibench.access import LocalTraining
from mibench.attacks.agic import Agic, ramp
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.knowledge import Knowledge
from mibench.optim.gradient_distance import cosine
from mibench.optim.input_space import Pixels
from mibench.optim.row_adam import Adam
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal


def observe(digits_view, local, batch=4):
    """Returns a view of one client of federated averaging, with its batch and the gradient of all of it."""
    view, secret = digits_view(partial(Mlp, hidden=[32]), 1, batch, local=local, deltas=local.steps(batch) > 1)
    return view, secret, {name: value.detach() for name, value in view.gradient(secret.x, secret.y).items()}


def attack(view, kind=Agic, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return kind(**{"iterations": 100, "tv": 0.0, **options})(view, Knowledge(), goal, seed=0)


def apart(view, whole):
    """Returns the cosine distance of the averaged update from the true gradient."""
    (message,) = view.as_gradients()
    return float(cosine({n: v[None] for n, v in message.items()}, {n: v[None] for n, v in whole.items()}))


def steps(lr, epochs=2, batch_size=1):
    return LocalTraining(epochs=epochs, batch_size=batch_size, lr=lr)


def test_what_descends_is_the_weighted_cosine_and_the_total_variation(digits_view):
    """One gradient of the batch against the averaged update, with weights of 1 to 5 from layer to layer."""
    view, secret, _ = observe(digits_view, steps(0.05))
    pixels, labels = Pixels.of(view), secret.y[None]

    def look(adam, objective, start, found, steps, project):
        u = torch.randn(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        ours, (sent,) = view.gradients(pixels.to_inputs(u), labels), view.as_gradients()
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in sent))
        weights = [1 + 4 * layers.index(name.rpartition(".")[0]) / (len(layers) - 1) for name in sent]
        pairs = [(ours[name].flatten(), value.flatten()) for name, value in sent.items()]
        product, own, theirs = (
            sum(w * (a @ b) for w, (a, b) in zip(weights, parts, strict=True))
            for parts in (pairs, [(a, a) for a, _ in pairs], [(b, b) for _, b in pairs])
        )
        value, score = objective(torch.zeros(1, dtype=torch.long), u)
        torch.testing.assert_close(score[0], 1 - product / (own * theirs).sqrt())
        torch.testing.assert_close(value[0], score[0] + 0.7 * variation(u[0]).mean())
        assert adam.signed and project is not None

    given = Knowledge(facts={"labels": secret.y}, described=("labels",))
    inside(Adam, "minimise", lambda: Agic(tv=0.7)(view, given, InstanceGoal(1, 4), seed=0), look)


def test_the_averaged_update_is_nearly_the_gradient_of_the_whole_batch(digits_view):
    distances = [apart(*observe(digits_view, steps(lr))[::2]) for lr in (0.3, 0.01, 0.0001)]
    assert distances[1] < 0.05
    assert distances[2] < 1e-3 < distances[0]
    assert distances[0] > distances[1] > distances[2]
    view, _, whole = observe(digits_view, LocalTraining(1, 0, 0.01))
    (one,) = view.as_gradients()
    assert all(torch.allclose(one[name], whole[name], atol=1e-5) for name in whole)
    view, _, whole = observe(digits_view, steps(0.0001))
    (one,) = view.as_gradients()  # in size too
    assert all(torch.allclose(one[name], whole[name], atol=1e-3) for name in whole)
    assert not torch.allclose(view.messages[0]["head.bias"], whole["head.bias"], atol=1e-3)


def test_a_step_costs_the_same_whatever_the_number_of_local_steps(digits_view, monkeypatch):
    passes = []
    gradient = torch.autograd.grad
    monkeypatch.setattr(
        "mibench.access.gradients.torch.autograd.grad",
        lambda *given, **more: passes.append(1) or gradient(*given, **more),
    )

    def cost(kind, **local):
        view, _, _ = observe(digits_view, steps(0.01, **local))
        passes.clear()
        before = view.ledger.gradient_evals
        attack(view, kind, iterations=10, tolerance=0.0)
        return view.ledger.gradient_evals - before, len(passes)

    one, many = cost(Agic, epochs=1, batch_size=4), cost(Agic, epochs=4)
    assert one == many == (11 * 4, 2 * 10 + 1)  # each of 10 steps: one gradient and its gradient; and the last point's
    assert cost(InvertingGradients, epochs=4)[0] == 4 * one[0]  # the simulation pays for every epoch


def test_with_one_step_and_equal_weights_it_is_inverting_gradients(digits_view):
    class Same(InvertingGradients):
        card = dataclasses.replace(InvertingGradients.card, name="agic")  # the name is part of the seed

    view, _, _ = observe(digits_view, LocalTraining(1, 0, 0.1), batch=2)
    theirs = attack(view, Same, iterations=30).reconstruction.values
    torch.testing.assert_close(attack(view, iterations=30, last_layer=1.0).reconstruction.values, theirs)
    assert float((attack(view, iterations=30).reconstruction.values - theirs).abs().max()) > 0.01


@pytest.mark.parametrize("last_layer", [1.0, 5.0])
def test_images_of_federated_averaging_come_back(digits_view, last_layer, nearest_errors):
    view, secret, _ = observe(digits_view, steps(0.01), batch=2)

    def error(view):
        result = attack(view, iterations=600, last_layer=last_layer).reconstruction
        return float(nearest_errors(result, secret).max()), sorted(result.labels.tolist())

    found, labels = error(view)
    assert found < 0.03
    assert labels == sorted(secret.y.tolist())
    noise = {name: torch.randn_like(value) for name, value in view.messages[0].items()}
    assert error(dataclasses.replace(view, messages=[noise]))[0] > 0.05


def test_the_cosine_weighs_later_layers_more(digits_view):
    view, secret, whole = observe(digits_view, LocalTraining(1, 0, 0.1), batch=1)
    bent = [{name: value * (-1 if name.startswith(layer) else 1) for name, value in whole.items()}
            for layer in ("stages", "head")]  # fmt: skip
    early, late = (
        Agic(last_layer=100.0).apart(view, secret.x[None], secret.y[None], {n: v[None] for n, v in one.items()}).item()
        for one in bent
    )
    assert early < 0.5 < late
    assert ramp(["a.weight", "a.bias", "b.weight"], 1.0) == [1.0, 1.0, 1.0]
