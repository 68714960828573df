import pytest
import torch
from exact import Spy, steps_of

from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.model import InpaintingPrior
from mibench.priors import inpainting_gan
from mibench.priors.base import PriorData
from mibench.priors.inpainting_gan import InpaintingGan, InpaintingGanNetworks
from mibench.seeding import seeded
from mibench.tasks.completion import hole_mask

SPEC = InputSpec("image", (1, 8, 8), classes=2)
HOLE = hole_mask("centre", 8, 8)


def halves(n=256):
    """Images whose left or right half is bright, half of them each: the border of an image says what its hole shows."""
    right = torch.arange(n) % 2
    images = torch.full((n, 1, 8, 8), 0.1)
    images[right == 0, :, :, :4] = 0.9
    images[right == 1, :, :, 4:] = 0.9
    return Examples(images, right)


def trained(iterations=60, **options):
    prior = InpaintingGan(
        **{"iterations": iterations, "width": 8, "latent_dim": 8, "batch_size": 16, "lr": 2e-3, **options}
    )
    with seeded(0):
        network = prior.network(SPEC)
        prior.train(network, PriorData(halves(), SPEC), 0, torch.device("cpu"))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def diverse():
    return trained()


def fillings(network, count=2):
    draws = torch.Generator().manual_seed(1)
    x = halves(32).x
    return x, [network.fill(x, HOLE, network.sample_latent(len(x), draws)) for _ in range(count)]


def apart(network):
    """Returns the mean absolute difference of two fillings inside the hole."""
    _, (one, other) = fillings(network)
    return float((one - other)[..., 2:6, 2:6].abs().mean())


def test_all_three_networks_step_along_the_stated_losses(monkeypatch):
    """Critics from the scores of generated and public images and a penalty, the generator from both."""
    critic, local, features = (
        Spy(getattr(InpaintingGanNetworks, name)) for name in ("critic", "patch_critic", "features")
    )
    for name, spy in (("critic", critic), ("patch_critic", local), ("features", features)):
        monkeypatch.setattr(InpaintingGanNetworks, name, lambda self, x, spy=spy: spy(self, x))
    monkeypatch.setattr(inpainting_gan, "gradient_penalty", lambda *given: torch.tensor(0.25))
    latents, draw = [], InpaintingGanNetworks.sample_latent
    monkeypatch.setattr(
        InpaintingGanNetworks, "sample_latent", lambda self, *given: latents.append(draw(self, *given)) or latents[-1]
    )
    taken = steps_of(inpainting_gan, lambda: trained(iterations=1, n_critic=1, diversity=0.7), 3)
    (of_judge, judge), (of_local, local_judge), (of_maker, makers) = taken
    network = critic.given[0]
    assert judge is network.judge and local_judge is network.local_judge and len(makers) == 3
    fake, real, whole = (float(one.mean()) for one in critic.returned)
    patch, other, window = (float(one.mean()) for one in local.returned)
    assert of_judge == pytest.approx(fake - real + 10 * 0.25, abs=1e-5)
    assert of_local == pytest.approx(patch - other + 10 * 0.25, abs=1e-5)
    first, second = latents[-2:]
    one, two = features.returned[2:4]
    apart = float((one - two).abs().mean() / (first - second).abs().mean())
    assert of_maker == pytest.approx(-(whole + window) / 2 - 0.7 * apart, abs=1e-5)
    torch.testing.assert_close(network.mean_pixel, halves().x.mean((0, 2, 3), keepdim=True))


def test_the_local_critic_compares_real_and_generated_images_in_one_window_per_step(monkeypatch):
    places, patch = [], InpaintingGanNetworks.patch
    monkeypatch.setattr(
        InpaintingGanNetworks, "patch", lambda self, x, place: places.append(place) or patch(self, x, place)
    )
    steps_of(inpainting_gan, lambda: trained(iterations=1, n_critic=4), 8)
    assert len(places) == 8 and places[::2] == places[1::2] and places[0] != places[2]


def test_two_latents_give_two_fillings(diverse):
    assert apart(diverse) > 0.01
    assert apart(trained(diversity=0.0)) < 0.01  # the hole follows from its border, so the generator ignores its latent


def error(network):
    x, (filled, _) = fillings(network)
    return float((filled - x)[..., 2:6, 2:6].square().mean())


def test_the_hole_is_filled_as_its_border_asks(diverse):
    """The mean public pixel is off by 0.16."""
    assert error(diverse) < 0.08
    assert error(trained(iterations=1)) > 0.08


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 24, 24), (3, 32, 32), (3, 64, 64)])
@pytest.mark.parametrize("hole", ["centre", "face_t"])
def test_known_pixels_are_the_very_ones_given(shape, hole):
    torch.manual_seed(0)
    network = InpaintingGan(width=4, latent_dim=8).network(InputSpec("image", shape, 5)).eval()
    mask = hole_mask(hole, *shape[1:])
    x, other = torch.rand(2, 3, *shape)
    images = network.fill(x, mask, torch.randn(3, 8)).detach()
    assert torch.equal(images.masked_fill(mask, 0), x.masked_fill(mask, 0))
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    hidden = network.fill(
        torch.where(mask, other, x), mask, torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    )
    again = network.fill(x, mask, torch.randn(3, 8, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(hidden.masked_fill(~mask, 0), again.masked_fill(~mask, 0))  # what is hidden is never looked at
    assert network.critic(images).shape == network.local_critic(images, torch.Generator()).shape == (3,)
    assert network.generate(torch.randn(2, 8)).shape == (2, *shape)


def test_what_the_hole_hides_is_not_looked_at_and_what_is_around_it_is(diverse):
    x, z = halves(32).x, diverse.sample_latent(32, torch.Generator().manual_seed(1))
    filled, hidden, around = (
        diverse.fill(one, HOLE, z)[..., 2:6, 2:6]
        for one in (x, torch.where(HOLE, 1 - x, x), torch.where(HOLE, x, 1 - x))
    )
    assert torch.equal(filled, hidden)
    assert float((filled - around).abs().mean()) > 0.05


def test_a_fill_depends_on_its_own_image_and_latent_alone(diverse):
    x, (filled, _) = fillings(diverse)
    z = diverse.sample_latent(len(x), torch.Generator().manual_seed(1))
    torch.testing.assert_close(diverse.fill(x[:3], HOLE, z[:3]), filled[:3])
    assert isinstance(diverse, InpaintingPrior)


def test_the_local_critic_sees_a_window_that_moves(diverse):
    x = halves(8).x
    scores = [diverse.local_critic(x, torch.Generator().manual_seed(seed)) for seed in range(6)]
    assert len({tuple(score.tolist()) for score in scores}) > 1
    draws = torch.Generator().manual_seed(0)
    torch.testing.assert_close(diverse.realism(x, draws), diverse.critic(x) + scores[0])


def test_the_public_mean_stands_in_the_hole(diverse):
    assert float(diverse.mean_pixel) == pytest.approx(0.5, abs=1e-6)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="square"):
        InpaintingGan().network(InputSpec("image", (1, 8, 16), 5))
