import math

import pytest
import torch
from exact import steps_of
from torch.autograd.functional import jacobian

from mibench.data import InputSpec
from mibench.priors import flow as flow_module
from mibench.priors.base import PriorData
from mibench.priors.flow import Flow, FlowNetworks, FlowStep
from mibench.seeding import seeded


def scrambled(shape, **options):
    """A flow whose weights are far from those it starts with, in double precision."""
    with seeded(0):
        network = Flow(**{"levels": 3, "depth": 2, "width": 8, **options}).network(InputSpec("image", shape, 2))
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn(parameter.shape)
    network.double().eval().requires_grad_(False)
    for step in network.steps:
        step.rotation.copy_(torch.linalg.qr(step.rotation)[0])  # a rotation to double precision
    return network


def trained(digits8, iterations):
    prior = Flow(iterations=iterations, depth=2, width=16, lr=2e-3)
    with seeded(0):
        network = prior.network(digits8.spec)
        prior.train(network, PriorData(digits8.public, digits8.spec), 0, torch.device("cpu"))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def flow(digits8):
    return trained(digits8, 60)


def test_every_step_sees_many_public_images_under_noise_drawn_anew(digits8, monkeypatch):
    seen, bits = [], FlowNetworks.bits
    monkeypatch.setattr(FlowNetworks, "bits", lambda self, *given: seen.append(given) or bits(self, *given))
    trained(digits8, 2)
    for images, noise in seen:
        assert len(images.unique(dim=0)) > 0.75 * len(images)
        assert noise.shape == images.shape and 0 <= float(noise.min()) < 0.01 and 0.99 < float(noise.max()) < 1
        assert abs(float(noise.mean()) - 0.5) < 0.05
    assert len(seen) == 2 and not torch.equal(seen[0][1], seen[1][1])


def test_training_begins_where_the_channels_of_every_step_have_mean_0_and_deviation_1(digits8):
    """Over all public images; the scales and shifts are those of the first batch of 64."""
    ((_, network),) = steps_of(flow_module, lambda: trained(digits8, 1), 1)
    moments = []

    def look(step, given):
        h = (given[0] + step.shift) * step.log_scale.exp()
        moments.append(torch.stack([h.mean((0, 2, 3)), h.std((0, 2, 3))]).detach())

    for step in network.steps:
        step.register_forward_pre_hook(look)
    network.bits(digits8.public.x, torch.rand(digits8.public.x.shape, generator=torch.Generator().manual_seed(0)))
    means, deviations = torch.cat(moments, 1)
    assert float(means.abs().max()) < 0.5 and float((deviations - 1).abs().max()) < 0.5


def draw(network, n, seed=0):
    return network.sample_latent(n, torch.Generator().manual_seed(seed))


def inverts(network, x):
    return float((network.generate(network.latents(x)) - x).abs().max()) < 1e-4


@pytest.mark.parametrize("shape", [(1, 2, 2), (1, 8, 8), (3, 8, 8), (3, 16, 8)])
def test_the_inverse_is_exact(shape):
    network = scrambled(shape)
    z = draw(network, 5).double()
    assert network.latent_dim == math.prod(shape)
    assert float((network.encode(network.decode(z))[0] - z).abs().max()) < 1e-8
    assert inverts(network, torch.rand(5, *shape).double())


def test_it_is_exact_after_training_too_and_a_stub_is_not(flow, digits8, monkeypatch):
    x = digits8.public.x[:64]
    assert inverts(flow, x)
    monkeypatch.setattr(FlowStep, "_coupled", lambda self, first: (torch.rand_like(first), torch.rand_like(first)))
    assert not inverts(flow, x)  # a coupling that is not a function of the first half


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 2, 4)])
def test_the_log_determinant_is_that_of_the_jacobian(shape):
    network = scrambled(shape)
    pixels = torch.rand(3, *shape).double()
    z, log_det = network.encode(pixels)
    for one, said in zip(pixels, log_det, strict=True):
        slopes = jacobian(lambda p: network.encode(p[None])[0][0], one).reshape(z.shape[1], -1)
        assert abs(float(torch.linalg.slogdet(slopes)[1] - said)) < 1e-8


def test_bits_are_those_of_levels_of_256():
    """Where every step is the identity but for its rotation, the density is that of a logit-normal pixel."""
    with seeded(0):
        network = Flow(depth=1, width=4).network(InputSpec("image", (1, 4, 4), 2)).double()
    x = torch.full((1, 1, 4, 4), 0.5).double()
    inner = 0.05 + 0.9 * (255 * 0.5 + 0.5) / 256
    y = math.log(inner / (1 - inner))
    log_density = -(y**2 + math.log(2 * math.pi)) / 2 + math.log(0.9 / (inner * (1 - inner)))
    assert abs(float(network.bits(x).detach()) - (8 - log_density / math.log(2))) < 1e-5


def test_public_images_are_more_likely_than_their_shuffled_pixels(flow, digits8):
    """Measured: 6.6 bits per dimension against 18.3; untrained 9.9 against 9.9."""
    x = digits8.public.x[:200]
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    shuffled = x.flatten(2)[..., order].reshape(x.shape)

    def gap(network):
        return float((network.critic(x) - network.critic(shuffled)).mean())

    with seeded(0):
        untrained = Flow(depth=2, width=16).network(digits8.spec).requires_grad_(False)
    assert gap(flow) > 2
    assert not gap(untrained) > 0.5


def test_training_raises_the_likelihood_of_other_images_of_the_kind_too(flow, digits8):
    unseen = digits8.private.train.x[:200]
    assert float(flow.bits(unseen).mean()) < float(trained(digits8, 1).bits(unseen).mean()) - 0.5


def test_images_differ_lie_in_range_and_are_scored_one_by_one(flow, digits8):
    images = flow.generate(draw(flow, 64))
    assert images.shape == (64, 1, 8, 8) and float(images.min()) >= 0 and float(images.max()) <= 1
    spread = float(images.std(0).mean())
    assert spread > 0.5 * float(digits8.public.x.std(0).mean())
    assert not float(flow.generate(draw(flow, 1).expand(64, -1)).std(0).mean()) > 0.01  # one image 64 times
    torch.testing.assert_close(flow.critic(images)[:5], flow.critic(images[:5]), rtol=1e-4, atol=1e-3)


def test_gradients_reach_latents_and_images(flow):
    z = draw(flow, 4).requires_grad_(True)
    images = flow.generate(z)
    (slope,) = torch.autograd.grad(flow.critic(images).sum(), z)
    assert bool(slope.isfinite().all()) and bool((slope.abs().sum(1) > 0).all())


@pytest.mark.parametrize("size", [6, 20, 28])
def test_sizes_that_the_levels_do_not_divide_are_resized(size):
    network = Flow(depth=1, width=4).network(InputSpec("image", (1, size, size), 2))
    images = network.generate(draw(network, 2)).detach()
    assert images.shape == (2, 1, size, size) and network.critic(images).shape == (2,)


@pytest.mark.parametrize("attack", ["gmi", "vmi"])
def test_it_serves_attacks_of_latents(attack, make_cell):
    cell = make_cell(f"attack={attack}", "prior=flow", "prior.iterations=3", "attack.iterations=2", "dataset.size=8")
    assert bool(cell.result.reconstruction.values.isfinite().all()) and not cell.result.stopped
