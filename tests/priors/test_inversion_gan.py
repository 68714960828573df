import itertools
import math

import pytest
import torch
from exact import Spy, steps_of
from torch.nn.functional import cross_entropy, one_hot

from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.priors import inversion_gan
from mibench.priors.base import PriorData
from mibench.priors.inversion_gan import Closeness, InversionGan, InversionGanNetworks
from mibench.seeding import seeded

SMALL = {"width": 16, "latent_dim": 16, "lr": 1e-3, "n_critic": 2, "kernels": 16, "kernel_dim": 10}


def train(view, public, iterations=50, **options):
    prior = InversionGan(**{"iterations": iterations, **SMALL, **options})
    with seeded(0):
        network = prior.network(view.spec)
        prior.train(network, PriorData(public, view.spec, view), 0, torch.device("cpu"))
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def halves(digits8):
    """Public digits to train on and public digits to look at."""
    order = torch.randperm(len(digits8.public), generator=torch.Generator().manual_seed(0))
    x, y = digits8.public.x[order], digits8.public.y[order]
    half = len(x) // 2
    return Examples(x[:half], y[:half]), x[half:]


@pytest.fixture(scope="module")
def view(white_box, trained_cnn, digits8):
    return white_box(trained_cnn, digits8)


@pytest.fixture(scope="module")
def trained(view, halves):
    return train(view, halves[0])


class Hedging:
    """A target that finds classes 0 and 1 equally likely in every image; ``hard`` names class 0 instead."""

    spec = InputSpec("image", (1, 8, 8), classes=2)

    def __init__(self, hard=False):
        self.answer = torch.tensor([50.0, 0.0]) if hard else torch.zeros(2)

    def logits(self, x):
        return self.answer.expand(len(x), 2)


def test_both_networks_step_along_the_stated_losses(view, halves, monkeypatch):
    """Losses from the logits and features of the very images that were shown; labels, real and generated ones."""
    logits, features, classify = (
        Spy(getattr(InversionGanNetworks, name)) for name in ("logits", "features", "classify")
    )
    for name, spy in (("logits", logits), ("features", features), ("classify", classify)):
        monkeypatch.setattr(InversionGanNetworks, name, lambda self, x, spy=spy: spy(self, x))
    shown = Spy(InversionGan.batch)
    monkeypatch.setattr(InversionGan, "batch", lambda self, data, draws: shown(self, data, draws))
    options = {"iterations": 1, "n_critic": 1, "entropy_weight": 0.3, "label_weight": 0.7}
    (of_judge, _), (of_maker, _) = steps_of(inversion_gan, lambda: train(view, halves[0], **options), 2)
    labelled, other, fake = logits.returned[:3]
    s = [one.logsumexp(1) for one in (other, fake)]
    labels = cross_entropy(labelled, view.logits(shown.returned[0]).softmax(1))
    real, made = (torch.nn.functional.softplus(s[0]) - s[0]).mean() / 2, torch.nn.functional.softplus(s[1]).mean() / 2
    assert of_judge == pytest.approx(float(0.7 * labels + real + made), rel=1e-4)
    assert len(shown.returned) == 3 and not any(torch.equal(*two) for two in itertools.combinations(shown.returned, 2))
    generated, public = features.returned[-2:]
    chances = classify.returned[-1].softmax(1)
    apart = (generated.mean(0) - public.mean(0)).abs().mean()
    assert of_maker == pytest.approx(float(apart - 0.3 * (chances * chances.log()).sum()), rel=1e-4)


def test_the_critic_is_the_log_probability_of_real(trained, halves):
    with torch.no_grad():
        z = trained.logits(halves[1]).double().exp().sum(1)
        torch.testing.assert_close(trained.critic(halves[1]).double(), (z / (z + 1)).log(), atol=1e-6, rtol=1e-6)


def surprise(network, view, images):
    """Returns the cross-entropy of the class head to the target's soft labels, in units of log K."""
    with torch.no_grad():
        soft = view.logits(images).softmax(1)
        return float(cross_entropy(network.logits(images), soft)) / math.log(view.spec.classes)


def test_the_class_head_learns_the_targets_soft_labels(trained, view, halves):
    assert surprise(trained, view, halves[1]) < 0.8
    untaught = train(view, halves[0], label_weight=0.0)
    assert surprise(untaught, view, halves[1]) > 0.95


def hedges(target, images):
    """Whether the class head finds both classes equally likely, as the target does."""
    network = train(target, images, iterations=20)
    return float((network.logits(images.x).softmax(1)[:, 0] - 0.5).abs().mean()) < 0.1


def test_labels_are_soft(halves):
    assert hedges(Hedging(), halves[0])
    assert not hedges(Hedging(hard=True), halves[0])  # what taking the most likely class would teach


def test_public_images_are_more_real_than_generated_ones_and_noise(trained, halves):
    draws = torch.Generator().manual_seed(1)
    generated = trained.generate(trained.sample_latent(256, draws))
    noise = torch.rand(generated.shape, generator=draws)
    real = float(trained.critic(halves[1]).mean())
    assert real > float(trained.critic(generated).mean()) + 0.5
    assert real > float(trained.critic(noise).mean()) + 0.5


def test_a_prior_is_of_its_target(trained, halves, view):
    """Another target, whose classes are permuted, gives another class head; the public images are the same."""

    class Permuted:
        spec = view.spec

        def logits(self, x):
            return view.logits(x).roll(1, 1)

    other = train(Permuted(), halves[0])
    assert surprise(other, Permuted(), halves[1]) < 0.8
    assert surprise(trained, Permuted(), halves[1]) > 0.95


def test_the_target_is_asked_once_per_labelled_image(white_box, trained_cnn, digits8, halves):
    fresh = white_box(trained_cnn, digits8)
    train(fresh, halves[0], iterations=3)
    assert fresh.ledger.queries == 3 * SMALL["n_critic"] * 64
    assert fresh.ledger.gradient_evals == 0


def test_an_image_in_use_is_judged_by_itself(trained, halves):
    images = halves[1][:8]
    apart = torch.cat([trained.critic(one) for one in images.split(1)])
    torch.testing.assert_close(trained.critic(images), apart, atol=1e-5, rtol=1e-5)


def test_closeness_counts_the_others_that_coincide():
    layer = Closeness(4, kernels=3, kernel_dim=2)
    features = 100 * one_hot(torch.tensor([0, 0, 0, 1, 2]), 4).float()
    torch.testing.assert_close(layer(features).detach(), torch.tensor([2.0, 2, 2, 0, 0])[:, None].expand(5, 3))
    assert not bool(layer.eval()(features).any()), "in use an image is judged by itself"


def test_images_of_every_size_are_generated_and_judged():
    for size in (8, 16, 24, 32):
        spec = InputSpec("image", (3, size, size), 5)
        network = InversionGan(width=4, latent_dim=8, kernels=2, kernel_dim=3).network(spec)
        images = network.generate(torch.randn(4, 8)).detach()
        assert images.shape == (4, 3, size, size)
        assert float(images.min()) >= 0 and float(images.max()) <= 1
        assert network.critic(images).shape == (4,) and network.logits(images).shape == (4, 5)


def test_images_that_are_not_square_are_refused():
    with pytest.raises(UserError, match="square"):
        InversionGan().network(InputSpec("image", (1, 8, 16), 5))
