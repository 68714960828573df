from functools import partial

import pytest
import torch
from exact import inside, variation

from mibench.attacks.rgcir import Rgcir
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.optim.input_space import Pixels
from mibench.optim.row_adam import Adam
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

MLP = partial(Mlp, hidden=[32])


def attack(view, **options):
    goal = InstanceGoal(len(view.messages), 1)
    options = {"iterations": 500, "tv": 0.0, "restarts": 1, "label_rule": "bias_sign", **options}
    return Rgcir(**options)(view, Knowledge(), goal, seed=0).reconstruction


def uneven(message):
    """Returns a message of which every tensor is a tenth as long as the one before."""
    return {name: 10.0**-index * value for index, (name, value) in enumerate(message.items())}


def test_what_descends_is_the_formula(digits_view):
    """Mean cosine distance by layer, soft box and norm under one weight, total variation; the steps fall by tens."""
    view, secret = digits_view(MLP, 2)
    pixels = Pixels.of(view)

    def look(adam, objective, start, found, steps, project):
        u = 3 * torch.randn(2, 1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
        ours = view.updates(pixels.to_inputs(u), secret.y[:, None])
        sent = {name: torch.stack([one[name] for one in view.messages]) for name in view.messages[0]}
        pairs = [(ours[name].flatten(1), sent[name].flatten(1)) for name in sent]
        apart = torch.stack([1 - torch.cosine_similarity(*pair) for pair in pairs]).mean(0)
        images = pixels.to_inputs(u)
        outside = ((images - 1).relu() + (-images).relu()) / pixels.std
        soft = outside.square().flatten(1).sum(1) + 0.3 * u.square().flatten(1).mean(1)
        value, score = objective(torch.arange(2), u)
        torch.testing.assert_close(score, apart)
        torch.testing.assert_close(value, apart + 0.2 * soft + 0.7 * variation(u[:, 0]))
        assert project is None and adam.signed
        return [adam.rate(step) for step in (0, 299, 300, 500, 700)]

    options = {"distance": "layer_cosine", "in_range": 0.2, "l2": 0.3, "tv": 0.7, "iterations": 800, "lr": 0.1}
    rates = inside(Adam, "minimise", lambda: attack(view, **options), look)
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.001, 0.0001])


def test_images_come_back_with_their_label(digits_view):
    view, secret = digits_view(MLP, 3)
    result = attack(view)
    assert float(squared_errors(result.values, secret.x).max()) < 1e-4
    assert torch.equal(result.labels, secret.y)
    assert float(squared_errors(result.values.roll(1, 0), secret.x).min()) > 0.02  # other clients' do not


def test_the_length_of_each_layers_gradient_does_not_matter(digits_view):
    def apart(scaled, **options):
        view, secret = digits_view(MLP, 3, change=uneven if scaled else dict)
        sent = {name: torch.stack([one[name] for one in view.messages]) for name in view.messages[0]}
        x = torch.rand(3, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        return Rgcir(**options).apart(view, x, secret.y[:, None], sent).detach()

    tensors = {"distance": "layer_cosine"}
    torch.testing.assert_close(apart(True, **tensors), apart(False, **tensors), atol=1e-5, rtol=0)
    assert float((apart(True) - apart(False)).abs().max()) > 0.05

    def found(scaled, **options):
        view, secret = digits_view(MLP, 3, change=uneven if scaled else dict)
        return float(squared_errors(attack(view, **options).values, secret.x).max())

    assert found(True, **tensors) < 1e-4 < 1e-2 < found(True)


def test_the_default_is_one_cosine_over_all_parameters_and_a_variation_of_three_hundredths(digits_view):
    view, secret = digits_view(MLP, 1)
    x = torch.rand(1, 1, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    (message,), model = view.messages, view.model
    own = torch.autograd.grad(torch.nn.functional.cross_entropy(model(x[0]), secret.y[:1]), list(model.parameters()))
    pairs = [(g.flatten(), message[name].flatten()) for (name, _), g in zip(model.named_parameters(), own, strict=True)]
    sent = {name: value[None] for name, value in message.items()}
    whole = 1 - torch.nn.functional.cosine_similarity(*(torch.cat(side) for side in zip(*pairs, strict=True)), dim=0)
    tensors = torch.stack([1 - torch.nn.functional.cosine_similarity(*pair, dim=0) for pair in pairs]).mean()
    method, guess = Rgcir(), Rgcir(distance="layer_cosine")
    assert (method.distance, method.tv, method.in_range, method.l2) == ("cosine", 0.03, 1e-3, 1e-6)
    torch.testing.assert_close(method.apart(view, x, secret.y[:1, None], sent)[0].detach(), whole)
    torch.testing.assert_close(guess.apart(view, x, secret.y[:1, None], sent)[0].detach(), tensors)
    assert float((whole - tensors).abs()) > 1e-3


def outside(view, monkeypatch, **options):
    """Returns the share of pixels that are out of range by more than a grey level, before the answer is clamped."""
    seen = []
    answer = Rgcir.answer

    def look(self, view, goal, found, labels, pixels):
        images = pixels.to_inputs(found.of_messages()[0][0])
        seen.append(((images < -1 / 255) | (images > 1 + 1 / 255)).float().mean())
        return answer(self, view, goal, found, labels, pixels)

    with monkeypatch.context() as patch:
        patch.setattr(Rgcir, "answer", look)
        attack(view, **options)
    return float(seen[-1])


def test_the_input_regularisation_keeps_pixels_in_range(monkeypatch, digits_view):
    view, _ = digits_view(MLP, 3)
    guess = {"distance": "layer_cosine"}  # one cosine over all matches these images exactly, with and without it
    with_it, without = outside(view, monkeypatch, **guess), outside(view, monkeypatch, in_range=0.0, **guess)
    assert with_it < 0.01
    assert with_it < 0.5 * without


def test_the_penalty_is_of_what_lies_outside(digits_view):
    view, _ = digits_view(MLP, 3)
    pixels = Pixels.of(view)
    u = torch.zeros(2, 1, 1, 8, 8)
    u[1, 0, 0, 0, 0] = 3.0
    u[1, 0, 0, 0, 1] = -2.0
    edge = float(pixels.project(u).max()), float(pixels.project(u).min())
    expected = (3 - edge[0]) ** 2 + (-2 - edge[1]) ** 2
    found = Rgcir(tv=0.0, in_range=0.5, l2=0.0).penalty(u, pixels)
    assert torch.allclose(found, torch.tensor([0.0, 0.5 * expected]))
