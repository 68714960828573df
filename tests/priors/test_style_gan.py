import pytest
import torch
from exact import Spy, steps_of
from torch import nn

from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.nn.adversarial import step_along
from mibench.nn.style import Discriminator, StyleNetworks
from mibench.nn.style_layers import EqualConv, ModulatedConv
from mibench.priors import style_gan
from mibench.priors.base import PriorData
from mibench.priors.style_gan import StyleGan, squared_slope
from mibench.seeding import seeded

SPEC = InputSpec("image", (1, 8, 8), classes=2)
SMALL = {
    "latent_dim": 16,
    "w_dim": 16,
    "layers": 2,
    "base": 128,
    "width": 16,
    "batch_size": 16,
    "mixing": 0.0,
    "gamma": 1.0,
}


def untrained(size=32, noise=0.3, **options):
    """A generator of random weights whose mean style and noise are not zero, in double precision."""
    with seeded(0):
        network = StyleGan(**{**SMALL, **options}).network(InputSpec("image", (3, size, size), 2))
    network.mean_style.copy_(network.mapping(draw(network, 500)).mean(0).detach())
    for name, parameter in network.named_parameters():
        if name.endswith("strength"):
            parameter.data.fill_(noise)
    return network.double().eval().requires_grad_(False)


def draw(network, n, seed=0):
    z = network.sample_latent(n, torch.Generator().manual_seed(seed))
    return z.to(network.mean_style.dtype)


def taught(**options):
    """Trains for a few steps on images of noise, and returns the networks."""
    public = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    prior = StyleGan(**{**SMALL, "iterations": 4, "batch_size": 4, **options})
    with seeded(0):
        network = prior.network(SPEC)
        prior.train(
            network, PriorData(Examples(public, torch.zeros(64, dtype=torch.long)), SPEC), 0, torch.device("cpu")
        )
    return network


def test_both_networks_step_along_the_stated_losses(monkeypatch):
    """Softplus losses of the scores of generated, generated and public images, and the penalty in its steps alone."""
    critic = Spy(StyleNetworks.critic)
    monkeypatch.setattr(StyleNetworks, "critic", lambda self, x: critic(self, x))
    monkeypatch.setattr(style_gan, "squared_slope", lambda network, real: torch.tensor(0.5))
    taken = steps_of(style_gan, lambda: taught(penalty_every=2, gamma=3.0), 8)
    softplus = nn.functional.softplus
    for first, at in ((0, 0), (3, 3), (5, 6)):
        made, fake, real = critic.returned[at : at + 3]
        assert taken[first][0] == pytest.approx(float(softplus(-made).mean()), rel=1e-5)
        assert taken[first + 1][0] == pytest.approx(float(softplus(fake).mean() + softplus(-real).mean()), rel=1e-5)
    penalties = [place for place, (loss, _) in enumerate(taken) if loss == pytest.approx(3.0 / 2 * 2 * 0.5, abs=1e-6)]
    assert penalties == [2, 7], "in the first and the third step, twice as strong"


@pytest.mark.parametrize("average", [1.0, 100.0])
def test_the_kept_generator_is_the_running_average(average, monkeypatch):
    """The average worked out beside it; half is forgotten after a twentieth of the images shown, at the most."""
    trained = []

    def step(adam, loss, module):
        step_along(adam, loss, module)
        if isinstance(module, nn.ModuleList):
            trained.append([one.detach().clone() for one in module.parameters()])

    monkeypatch.setattr(style_gan, "step_along", step)
    network = taught(lr=0.05, average=average, iterations=8)
    with seeded(0):
        fresh = StyleGan(**{**SMALL, "iterations": 4, "batch_size": 4}).network(SPEC)
    kept = [one.detach() for one in fresh.makers.parameters()]
    for number, now in enumerate(trained, 1):
        stay = 0.5 ** (4 / min(average, 4 * number / 20))
        kept = [stay * old + (1 - stay) * new for old, new in zip(kept, now, strict=True)]
    for found, expected in zip(network.makers.parameters(), kept, strict=True):
        torch.testing.assert_close(found, expected)
    mean = network.mapping(network.sample_latent(10_000, torch.Generator().manual_seed(5))).mean(0).detach()
    assert float((network.mean_style - mean).norm() / mean.norm()) < 0.2


def test_later_layers_take_the_style_of_another_latent():
    """With every image mixed, the first layer's style is the first latent's and the last layer's the second one's."""
    network, seen = untrained(size=8), []
    network.synthesise = lambda ws: seen.append(ws)
    for mixing in (1.0, 0.0):
        StyleGan(**{**SMALL, "mixing": mixing})._fake(network.float(), torch.Generator().manual_seed(0))
    mixed, plain = seen
    assert torch.equal(mixed[:, 0], plain[:, 0]) and not bool((mixed[:, -1] == plain[:, -1]).all(1).any())


def test_without_any_latent_left_all_images_are_the_mean_image():
    network = untrained()

    def spread(psi):
        return float(network.synthesise(network.styles(draw(network, 8), psi)).std(0).mean())

    assert spread(0.0) < 1e-12
    assert spread(0.5) < spread(1.0) and spread(0.5) > 1e-3  # the same check rejects a generator without truncation


def test_truncation_stops_at_the_cutoff():
    network = untrained()
    ws, cut = (network.styles(draw(network, 4), *how) for how in ((1.0,), (0.5, 3)))
    assert torch.equal(cut[:, 3:], ws[:, 3:])
    assert torch.allclose(cut[:, :3], (ws[:, :3] + network.mean_style) / 2)


def coarse_change(layers, flipped=False):
    """Returns how much the 8x8 averages change when the styles of some layers are replaced."""
    network = untrained(noise=0.0)
    one, other = (network.styles(draw(network, 32, seed)) for seed in (1, 2))
    mixed = one.clone()
    mixed[:, layers] = other[:, layers]
    images = [network.synthesise(ws.flip(1) if flipped else ws) for ws in (one, mixed)]
    return float(nn.functional.avg_pool2d(images[1] - images[0], 8).square().mean())


def test_late_layers_change_what_is_fine():
    early, late = slice(0, 2), slice(6, 8)
    assert coarse_change(late) < 0.1 * coarse_change(early)
    assert not coarse_change(late, flipped=True) < 0.1 * coarse_change(early, flipped=True)  # layers in another order


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_synthesis_in_two_parts_is_the_synthesis(cut):
    network = untrained()
    ws = network.styles(draw(network, 3))
    whole = network.synthesise(ws)
    state = network.blocks(ws, None, 0, cut)
    assert torch.allclose(network.synthesise(ws, state, cut), whole, atol=1e-10)
    forgetful = network.synthesise(ws, type(state)(state.hidden, None), cut)  # a stub that drops the running image
    assert not torch.allclose(forgetful, whole, atol=1e-3)


def test_gradients_reach_styles_and_features():
    network = untrained()
    ws = network.styles(draw(network, 3))
    state = network.blocks(ws, None, 0, 1)
    inputs = [ws.clone().requires_grad_(True), state.hidden.clone().requires_grad_(True)]
    images = network.synthesise(inputs[0], type(state)(inputs[1], state.image), 1)
    assert all((slope.flatten(1).abs().sum(1) > 0).all() for slope in torch.autograd.grad(images.sum(), inputs))


@pytest.mark.parametrize(("demodulate", "up"), [(True, False), (True, True), (False, False)])
def test_scaling_in_and_out_is_a_convolution_of_each_samples_own(demodulate, up):
    """Against kernels modulated and demodulated sample by sample, the images blurred after zeros are put between."""
    torch.manual_seed(0)
    conv = ModulatedConv(3, 5, 3, 4, demodulate=demodulate, up=up).double()
    x, w = torch.randn(2, 3, 6, 6).double(), torch.randn(2, 4).double()
    expected = []
    for one, style in zip(x, conv.affine(w), strict=True):
        kernel = conv.weight * style[None, :, None, None] * conv.gain
        if demodulate:
            kernel = kernel / (kernel.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if not up:
            expected.append(nn.functional.conv2d(one[None], kernel, padding=1))
            continue
        between = torch.zeros(1, 3, 12, 12).double()
        between[..., ::2, ::2] = one
        grown = nn.functional.conv2d(nn.functional.pad(between, (2, 2, 2, 2)), kernel.flip((2, 3)))
        blur = torch.outer(*[torch.tensor([1, 3, 3, 1.0]).double() / 4] * 2).expand(5, 1, 4, 4)
        expected.append(nn.functional.conv2d(grown, blur, padding=1, groups=5)[..., :12, :12])
    assert torch.allclose(conv(x, w), torch.cat(expected))


def test_a_convolution_that_halves_keeps_a_constant():
    conv = EqualConv(1, 1, 3, down=True)
    conv.weight.data.fill_(1 / 3)  # gain 1/3: the kernel is a mean
    assert torch.allclose(conv(torch.ones(1, 1, 16, 16))[..., 2:-2, 2:-2], torch.ones(1, 1, 4, 4), atol=1e-6)
    assert conv(torch.ones(1, 1, 16, 16)).shape[-1] == 8


def test_a_score_depends_on_the_batch_in_training_only():
    torch.manual_seed(0)
    judge = Discriminator([8, 8], 1)
    x = torch.randn(8, 1, 8, 8)
    assert not torch.allclose(judge(x)[:4], judge(torch.cat([x[:4], x[:4]]))[:4], atol=1e-6)
    judge.eval()
    assert torch.allclose(judge(x)[:4], judge(x[:4]), atol=1e-6)


def test_the_penalty_is_the_squared_slope_in_the_networks_own_range():
    network = untrained(size=8).float()
    network.critic = lambda x: (2 * x - 1).flatten(1).sum(1) * 3
    assert abs(float(squared_slope(network, torch.rand(4, 3, 8, 8)).detach()) - 9 * 192) < 1e-2


def two_modes(n=512):
    """Images whose left or right half is bright, half of them each, with a little noise."""
    right = torch.arange(n) % 2
    halves = torch.zeros(n, 1, 8, 8)
    halves[right == 0, :, :, :4] = 1
    halves[right == 1, :, :, 4:] = 1
    noise = 0.05 * torch.rand(halves.shape, generator=torch.Generator().manual_seed(0))
    return Examples(0.1 + 0.8 * halves + noise, right)


def report(iterations):
    """Returns the mean distance of generated images to the nearest public one, and the share of one mode."""
    prior = StyleGan(**SMALL, iterations=iterations)
    with seeded(0):
        network = prior.network(SPEC)
        prior.train(network, PriorData(two_modes(), SPEC), 0, torch.device("cpu"))
    network.eval().requires_grad_(False)
    images = network.generate(draw(network, 256))
    left = images[..., :4].flatten(1).mean(1) > images[..., 4:].flatten(1).mean(1)
    apart = torch.cdist(images.flatten(1), two_modes().x.flatten(1)).amin(1).mean()
    return float(apart), float(left.float().mean())


def test_training_reaches_both_modes():
    (start, one_sided), (distance, share) = report(1), report(200)
    assert distance < start / 2
    assert 0.25 < share < 0.75
    assert not 0.25 < one_sided < 0.75  # a generator that has not learned fails the same check


def test_images_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="square"):
        StyleGan().network(InputSpec("image", (1, 8, 16), 5))


def test_every_size_has_its_shape_and_twice_as_many_styles_as_blocks():
    for size, styles in ((8, 4), (16, 6), (24, 8), (32, 8)):
        network = StyleGan(**SMALL).network(InputSpec("image", (3, size, size), 5)).eval()
        assert network.num_ws == styles == 2 * network.num_blocks
        images = network.generate(torch.randn(2, 16)).detach()
        assert images.shape == (2, 3, size, size) and images.min() >= 0 and images.max() <= 1
        assert network.critic(images).shape == (2,)
