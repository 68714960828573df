import copy
import dataclasses
import typing

import pytest
import torch

from mibench.data import Examples, InputSpec, Population
from mibench.errors import UserError
from mibench.nn.adversarial import gradient_penalty
from mibench.priors.base import Prior, PriorData
from mibench.priors.wgan_gp import WganGp
from mibench.seeding import seeded
from mibench.storage.checkpoints import Checkpoints

SPEC = InputSpec("image", (1, 8, 8), classes=2)


def two_modes(n=512):
    """Images whose left or right half is bright, half of them each, with a little noise."""
    draws = torch.Generator().manual_seed(0)
    right = torch.arange(n) % 2
    halves = torch.zeros(n, 1, 8, 8)
    halves[right == 0, :, :, :4] = 1
    halves[right == 1, :, :, 4:] = 1
    noise = 0.05 * torch.rand(halves.shape, generator=draws)
    return Examples(0.1 + 0.8 * halves + noise, right)


class Reported(Checkpoints):
    """Reports after some steps of a training, and at its end."""

    def __init__(self, after):
        super().__init__()
        self.after = after

    def steps(self, count, what, *, network, **parts):
        for step in super().steps(count, what, network=network, **parts):
            if step in self.after:
                self.after[step] = report(copy.deepcopy(network))
            yield step
        self.after[count] = report(network)


def train(after, **options):
    """Returns reports after these numbers of generator steps of one training, which ends with the last."""
    prior = WganGp(**{"iterations": max(after), "width": 16, "latent_dim": 16, "lr": 1e-3, **options})
    watched = Reported(dict.fromkeys(after))
    with seeded(0):
        network = prior.network(SPEC)
        prior.train(network, PriorData(two_modes(), SPEC, checkpoints=watched), 0, torch.device("cpu"))
    return watched.after


def report(network):
    """Returns the critic's gap, its mean gradient norm between real and generated images, and the share of one mode."""
    draws = torch.Generator().manual_seed(1)
    network.eval().requires_grad_(False)
    real = two_modes().x
    fake = network.generate(network.sample_latent(len(real), draws))
    gap = float(network.critic(real).mean() - network.critic(fake).mean())
    alpha = torch.rand(len(real), 1, 1, 1, generator=draws)
    between = (alpha * real + (1 - alpha) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(network.critic(between).sum(), between)
    left = fake[..., :4].flatten(1).mean(1) > fake[..., 4:].flatten(1).mean(1)
    return gap, float(slope.flatten(1).norm(dim=1).mean()), float(left.float().mean())


def test_the_slope_is_penalised_at_a_point_of_its_own_between_each_real_and_generated_image():
    """Between black and white images, whose points tell where on the line they are; of a critic of slope 3."""
    seen = []
    critic = lambda x: seen.append(x.detach()) or 3 * x[:, 0, 0, 0]  # noqa: E731
    black, white = torch.zeros(32, 1, 2, 2), torch.ones(32, 1, 2, 2)
    assert float(gradient_penalty(critic, white, black, torch.Generator().manual_seed(0))) == pytest.approx(4.0)
    alpha = seen[0][:, 0, 0, 0]
    assert torch.equal(seen[0], alpha[:, None, None, None].expand_as(white))
    assert len(alpha.unique()) == 32 and 0 <= float(alpha.min()) < 0.2 and 0.8 < float(alpha.max()) <= 1


@pytest.fixture(scope="module")
def trained():
    """Reports after 20, 100 and 300 generator steps."""
    return train((20, 100, 300))


@pytest.fixture(scope="module")
def unpenalised():
    """Reports of a critic without gradient penalty."""
    return train((20, 100), penalty=0.0)


def test_the_critics_gap_falls_by_half_from_its_maximum(trained, unpenalised):
    assert trained[300][0] < trained[100][0] / 2
    assert unpenalised[100][0] > unpenalised[20][0]


def test_the_critics_slope_is_one(trained, unpenalised):
    assert 0.7 < trained[300][1] < 1.3
    assert not 0.7 < unpenalised[100][1] < 1.3


def test_both_modes_are_generated(trained):
    assert 0.3 < trained[300][2] < 0.7
    assert not 0.3 < trained[20][2] < 0.7  # too short a training fails the same check


def test_generated_images_lie_in_range_and_have_the_shape_asked_for():
    for size in (8, 16, 24, 32):
        network = WganGp(width=4, latent_dim=8).network(InputSpec("image", (3, size, size), 5))
        images = network.generate(torch.randn(4, 8)).detach()
        assert images.shape == (4, 3, size, size)
        assert float(images.min()) >= 0 and float(images.max()) <= 1
        assert network.critic(images).shape == (4,)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="square"):
        WganGp().network(InputSpec("image", (1, 8, 16), 5))


def test_training_accepts_public_images_and_a_view_that_holds_no_data():
    assert {field.name for field in dataclasses.fields(PriorData)} == {"public", "spec", "view", "checkpoints"}
    assert set(vars(Checkpoints())) == {"file", "ledger", "earlier"}
    for kind in (Prior, WganGp):
        assert typing.get_type_hints(kind.train)["data"] is PriorData


def test_other_private_images_give_the_very_same_prior(make_cell, tmp_path):
    """In a whole cell, from an empty store each: the private split changes, the prior does not."""

    def prior(number, change):
        cell = make_cell("attack=random_prior", "dataset.size=8", "prior.iterations=2", folder=tmp_path / str(number))
        vars(cell)["split"] = change(cell.split)
        return cell.knowledge.prior.state_dict()

    def noise(part):
        return Examples(torch.rand_like(part.x), part.y)

    def other_private(split):
        return dataclasses.replace(split, private=Population(noise(split.private.train), noise(split.private.test)))

    def other_public(split):
        return dataclasses.replace(split, public=noise(split.public))

    first, same, other = (prior(*each) for each in enumerate((lambda split: split, other_private, other_public)))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_images_are_mirrored_where_the_dataset_says_that_they_may_be():
    """A public image bright on its left only: mirrored, the generator learns both sides alike."""
    x = torch.zeros(8, 1, 8, 8)
    x[..., :4] = 1
    public = Examples(x, torch.zeros(8, dtype=torch.long))

    def critic_of(mirrored, flip):
        torch.manual_seed(0)
        spec = InputSpec("image", (1, 8, 8), 2, mirrored=mirrored)
        prior = WganGp(iterations=2, width=4, latent_dim=4, batch_size=8, n_critic=1, flip=flip)
        network = prior.network(spec)
        prior.train(network, PriorData(public, spec), 0, torch.device("cpu"))
        return network.judge[0].weight.detach()

    plain, mirrored = critic_of(False, None), critic_of(True, None)
    assert not torch.equal(plain, mirrored)
    assert torch.equal(critic_of(True, False), plain) and torch.equal(critic_of(False, True), mirrored)
