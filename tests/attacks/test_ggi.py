import math
from functools import partial

import pytest
import torch
from exact import cosine_distance, inside

from mibench.attacks.ggi import Ggi
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.data import Examples
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.model import LatentPrior
from mibench.optim.row_adam import Adam
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal


class LinearSigmoid(LatentPrior):
    """Makes 8x8 images of six numbers: a sigmoid of a linear map."""

    name, latent_dim = "linear_sigmoid", 6

    def __init__(self):
        super().__init__()
        self.register_buffer("a", torch.randn(64, 6, generator=torch.Generator().manual_seed(3)))

    def generate(self, z):
        return (z @ self.a.T).sigmoid().reshape(-1, 1, 8, 8)

    def critic(self, x):
        return x.mean((1, 2, 3))


class ItsOwnPixels(LatentPrior):
    """A stub of a generator: the pixels themselves."""

    name, latent_dim = "pixels", 64

    def generate(self, z):
        return (z / 4 + 0.5).clamp(0, 1).reshape(-1, 1, 8, 8)

    def critic(self, x):
        return x.mean((1, 2, 3))


def attack(view, prior, method=None, **options):
    method = method or Ggi(**{"iterations": 120, "lr": 0.1, "restarts": 4, **options})
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return method(view, Knowledge(latent_prior=prior), goal, seed=0).reconstruction


def made(prior, count):
    """Returns examples of images that the prior can make."""
    z = torch.randn(count, prior.latent_dim, generator=torch.Generator().manual_seed(5)).clamp(-2, 2)
    return Examples(prior.generate(z), torch.arange(count) % 5)


def floor(prior, x):
    """Returns how close the prior can come to each image, by descent in the image itself from many starts."""
    z = torch.randn(8, len(x), prior.latent_dim, generator=torch.Generator().manual_seed(6)).requires_grad_(True)
    adam = torch.optim.Adam([z], lr=0.1)
    for _ in range(400):
        error = (prior.generate(z.flatten(0, 1)).reshape(8, len(x), -1) - x.flatten(1)).square().mean(2)
        (z.grad,) = torch.autograd.grad(error.sum(), [z])
        adam.step()
    return error.detach().min(0).values


@pytest.fixture(scope="module")
def outside(digits_view):
    """Ten digits, which the prior cannot make."""
    return digits_view(Mlp, 10)[1]


@pytest.fixture
def observe(client_view, digits8):
    """Makes a view of what an untrained network sends for examples: ``observe(examples, batch=1)``."""
    torch.manual_seed(0)
    return partial(client_view, Mlp(spec=digits8.spec, hidden=[32]))


def test_what_descends_is_the_formula_by_the_stated_schedule(observe):
    """The objective at given latents, the score without its regulariser, the box, and the step size at four points."""
    prior = LinearSigmoid()
    secret = made(prior, 2)
    view = observe(secret)

    def look(adam, objective, start, found, steps, project):
        z = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
        rows = torch.arange(2)
        gradients = view.updates(prior.generate(z.flatten(0, 1)).reshape(2, 1, 1, 8, 8), secret.y[:, None])
        sent = {name: torch.stack([one[name] for one in view.messages]) for name in view.messages[0]}
        apart = cosine_distance(gradients, sent)
        value, score = objective(rows, z)
        torch.testing.assert_close(score, apart)
        torch.testing.assert_close(value, apart + 0.5 * z.square().flatten(1).mean(1))
        assert torch.equal(project(rows, [4 * z])[0], (4 * z).clamp(-2, 2))
        assert float(start[0].abs().max()) <= 2 and float(start[0].std()) > 0.5
        return [adam.rate(step) for step in (0, 10, 100, 625, 999)]

    rates = inside(Adam, "minimise", lambda: attack(view, prior, iterations=1000, restarts=1, z_reg=0.5), look)
    falling = [0.5 * (1 - math.cos(math.pi * left / 750)) for left in (375, 1)]
    assert rates == pytest.approx([0.0, 0.1 * 10 / 50, 0.1, 0.1 * falling[0], 0.1 * falling[1]])
    assert Ggi().distance == "cosine"


def test_what_the_generator_can_make_comes_back(observe):
    prior = LinearSigmoid()
    secret = made(prior, 10)
    view = observe(secret)
    result = attack(view, prior)
    assert int((squared_errors(result.values, secret.x) < 1e-3).sum()) >= 8
    assert torch.equal(result.labels, secret.y)
    unsearched = attack(view, prior, iterations=1)
    assert int((squared_errors(unsearched.values, secret.x) < 1e-3).sum()) == 0


def test_what_it_cannot_make_comes_no_closer_than_its_range(outside, observe):
    prior = LinearSigmoid()
    view, least = observe(outside), floor(prior, outside.x)
    assert bool((squared_errors(attack(view, prior).values, outside.x) > 0.999 * least).all())
    for stub in (attack(view, ItsOwnPixels()), attack(view, None, InvertingGradients(iterations=100, tv=0.0))):
        assert bool((squared_errors(stub.values, outside.x) < 0.1 * least).all())


def test_as_many_numbers_are_searched_as_the_batch_has_latents(monkeypatch, observe):
    prior, searched = LinearSigmoid(), []
    minimise = Adam.minimise

    def remember(self, objective, variables, *more, **options):
        searched.extend(tuple(one.shape) for one in variables)
        return minimise(self, objective, variables, *more, **options)

    monkeypatch.setattr(Adam, "minimise", remember)
    secret = made(prior, 6)
    result = attack(observe(secret, batch=3), prior, restarts=2, iterations=20)
    assert searched == [(2 * 2, 3, prior.latent_dim)]
    assert result.values.shape == secret.x.shape


def test_a_batch_comes_back_as_a_set(observe, nearest_errors):
    prior = LinearSigmoid()
    secret = made(prior, 2)
    result = attack(observe(secret, batch=2), prior, iterations=300)
    assert float(nearest_errors(result, secret).max()) < 1e-3


def test_latents_stay_inside_their_box_and_are_drawn_to_zero(outside, monkeypatch, observe):
    prior, seen = LinearSigmoid(), []
    generate = prior.generate
    monkeypatch.setattr(prior, "generate", lambda z: seen.append(z.detach().clone()) or generate(z))
    view = observe(outside[torch.arange(2)])

    def largest(**options):
        seen.clear()
        attack(view, prior, iterations=60, lr=0.3, **options)
        return float(torch.cat(seen).abs().max()), float(seen[-1].square().mean())

    assert largest(z_clip=0.5)[0] == 0.5
    assert largest(z_clip=None)[0] > 2 >= largest()[0]
    assert largest(z_clip=None, z_reg=1.0)[1] < 0.5 * largest(z_clip=None)[1]
