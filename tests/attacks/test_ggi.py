import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.attacks.ggi import Ggi
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.knowledge import Knowledge
from mibench.model import LatentPrior
from mibench.optim.gradient_matching import Adam
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

CPU = torch.device("cpu")


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


def observe(split, x, y, batch_size=1):
    """Returns a view of the messages of an untrained network for images ``x`` and class ids ``y``."""
    torch.manual_seed(0)
    model = Mlp(spec=split.spec, hidden=[32])
    view = GradientsView.of(model, [], batch_size, split.spec, Ledger(), CPU)
    batches = zip(x.split(batch_size), y.split(batch_size), strict=True)
    messages = [{name: value.detach() for name, value in view.gradient(*batch).items()} for batch in batches]
    return GradientsView.of(model, messages, batch_size, split.spec, Ledger(), CPU)


def attack(view, prior, method=None, **options):
    method = method or Ggi(**{"iterations": 120, "lr": 0.1, "restarts": 4, **options})
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return method(view, Knowledge(latent_prior=prior), goal, seed=0).reconstruction


def errors(result, x):
    return (result.values - x).square().flatten(1).mean(1)


def made(prior, count):
    """Returns images that the prior can make, with class ids."""
    z = torch.randn(count, prior.latent_dim, generator=torch.Generator().manual_seed(5)).clamp(-2, 2)
    return prior.generate(z), torch.arange(count) % 5


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
def outside(digits8):
    """Ten digits, which the prior cannot make."""
    rows = torch.randperm(len(digits8.private.train), generator=torch.Generator().manual_seed(1))[:10]
    return digits8.private.train[rows]


def test_what_the_generator_can_make_comes_back(digits8):
    prior = LinearSigmoid()
    x, y = made(prior, 10)
    view = observe(digits8, x, y)
    result = attack(view, prior)
    assert int((errors(result, x) < 1e-3).sum()) >= 8
    assert torch.equal(result.labels, y)
    unsearched = attack(view, prior, iterations=1)
    assert int((errors(unsearched, x) < 1e-3).sum()) == 0


def test_what_it_cannot_make_comes_no_closer_than_its_range(digits8, outside):
    prior = LinearSigmoid()
    view, least = observe(digits8, outside.x, outside.y), floor(prior, outside.x)
    assert bool((errors(attack(view, prior), outside.x) > 0.999 * least).all())
    for stub in (attack(view, ItsOwnPixels()), attack(view, None, InvertingGradients(iterations=100, tv=0.0))):
        assert bool((errors(stub, outside.x) < 0.1 * least).all())


def test_as_many_numbers_are_searched_as_the_batch_has_latents(digits8, monkeypatch):
    prior, searched = LinearSigmoid(), []
    minimise = Adam.minimise

    def remember(self, objective, variables, *more, **options):
        searched.extend(tuple(one.shape) for one in variables)
        return minimise(self, objective, variables, *more, **options)

    monkeypatch.setattr(Adam, "minimise", remember)
    x, y = made(prior, 6)
    result = attack(observe(digits8, x, y, batch_size=3), prior, restarts=2, iterations=20)
    assert searched == [(2 * 2, 3, prior.latent_dim)]
    assert result.values.shape == x.shape


def test_a_batch_comes_back_as_a_set(digits8):
    prior = LinearSigmoid()
    x, y = made(prior, 2)
    result = attack(observe(digits8, x, y, batch_size=2), prior, iterations=300)
    distance = torch.cdist(x.flatten(1), result.values.flatten(1)).square() / 64
    assert float(distance.min(1).values.max()) < 1e-3


def test_latents_stay_inside_their_box_and_are_drawn_to_zero(digits8, outside, monkeypatch):
    prior, seen = LinearSigmoid(), []
    generate = prior.generate
    monkeypatch.setattr(prior, "generate", lambda z: seen.append(z.detach().clone()) or generate(z))
    view = observe(digits8, outside.x[:2], outside.y[:2])

    def largest(**options):
        seen.clear()
        attack(view, prior, iterations=60, lr=0.3, **options)
        return float(torch.cat(seen).abs().max()), float(seen[-1].square().mean())

    assert largest(z_clip=0.5)[0] == 0.5
    assert largest(z_clip=None)[0] > 2 >= largest()[0]
    assert largest(z_clip=None, z_reg=1.0)[1] < 0.5 * largest(z_clip=None)[1]
