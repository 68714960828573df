"""Crafter: its hypergradient against finite differences, and where its features lead who inverts them."""

import dataclasses

import pytest
import torch
from exact import inside, steps_of
from torch import nn

from mibench.defenses import crafter
from mibench.defenses.base import DefenderData, Defense, DefenseContext
from mibench.defenses.crafter import INVERSION_WEIGHT, Crafter, hypergradient, invert
from mibench.errors import UserError
from mibench.seeding import seeded
from mibench.settings.victim import Blueprint, train_central
from mibench.targets.mlp import Mlp
from mibench.training import Recipe

SMALL = {"latent_dim": 16, "width": 8, "prior_iterations": 20, "amortiser_iterations": 150, "critic_steps": 2}
SHORT = {**SMALL, "reduction": "sum", "steps": 25, "lr": 0.1, "terms": 20, "inner_steps": 4}


# The hypergradient, where the attacker's answer is known in closed form


@pytest.fixture
def linear():
    """Losses of a linear encoder (16 to 8) and generator (4 to 16), five features, and their best latents."""
    draws = torch.Generator().manual_seed(0)
    encoder, maker, score = (torch.randn(*shape, generator=draws).double() for shape in ((8, 16), (16, 4), (4, 6)))
    both = encoder @ maker / 12
    true = torch.randn(5, 8, generator=draws).double()

    def inner(features, z):
        return INVERSION_WEIGHT * (z @ both.T - features).square().mean(1)

    def loss(features, z):
        return (z @ score).tanh().sum(1) + 0.5 * (features - true).square().mean(1)

    def answer(features):
        return features @ torch.linalg.pinv(both).T

    moved = true + 0.3 * torch.randn(5, 8, generator=draws).double()
    return loss, inner, answer, moved


def by_finite_differences(loss, answer, features, h=1e-5):
    slope = torch.zeros_like(features)
    for entry in range(features.shape[1]):
        ahead, behind = features.clone(), features.clone()
        ahead[:, entry] += h
        behind[:, entry] -= h
        slope[:, entry] = (loss(ahead, answer(ahead)) - loss(behind, answer(behind))) / (2 * h)
    return slope


def relative_error(found, truth):
    return float(((found - truth).norm(dim=1) / truth.norm(dim=1)).max())


@pytest.mark.parametrize("step", [1e-3, 1.0])
def test_the_slope_goes_through_the_attackers_answer(linear, step):
    """Measured: 2e-8 of 1e-2 allowed (0.1 after 120 terms), 3e-10 where the step alone would diverge.

    One term of the series leaves 0.9, the direct part alone 1.
    """
    loss, inner, answer, features = linear
    truth = by_finite_differences(loss, answer, features)
    z = answer(features)
    assert relative_error(hypergradient(loss, inner, features, z, step, 1000), truth) < 1e-2
    assert relative_error(hypergradient(loss, inner, features, z, 1e-3, 1), truth) > 0.3
    leaf = features.clone().requires_grad_(True)
    (direct,) = torch.autograd.grad(loss(leaf, z).sum(), leaf)
    assert relative_error(direct, truth) > 0.3


def of_means(loss, inner, features, z, step, terms):
    """Returns the slope where both losses are means over the batch, through the whole batch's Hessian, written out."""
    n, size = z.shape
    features, z = features.clone().requires_grad_(True), z.clone().requires_grad_(True)
    direct, pull = torch.autograd.grad(loss(features, z).mean(), (features, z))
    curvature = torch.autograd.functional.hessian(
        lambda flat: inner(features.detach(), flat.reshape(n, size)).mean(), z.detach().flatten()
    )
    term = total = pull.flatten()
    for _ in range(terms - 1):
        term = term - step * curvature @ term
        total = total + term
    (slope,) = torch.autograd.grad(inner(features, z).mean(), z, create_graph=True)
    (through,) = torch.autograd.grad(slope, features, step * total.reshape(n, size))
    return direct - through


def test_means_over_the_batch_are_a_series_of_every_example_with_a_step_over_its_size(linear):
    """Adam does not see the factor of five that is left; a sum's series is another slope."""
    loss, inner, answer, features = linear
    z = answer(features) + 0.1
    truth = 5 * of_means(loss, inner, features, z, 1e-3, 7)
    assert relative_error(hypergradient(loss, inner, features, z, 1e-3 / 5, 7), truth) < 1e-9
    assert relative_error(hypergradient(loss, inner, features, z, 1e-3, 7), truth) > 0.3


@pytest.mark.parametrize(("reduction", "shares"), [("mean", [10, 10, 4]), ("sum", [1, 1, 1])])
def test_the_step_of_the_series_is_shared_by_a_batch_where_losses_are_means(craft, monkeypatch, reduction, shares):
    seen = []

    def look(loss, inner, features, z, step, terms):
        seen.append(step)
        return torch.zeros_like(features)

    monkeypatch.setattr(crafter, "hypergradient", look)
    craft(reduction=reduction, batch=10, steps=1, term_step=1e-3)
    assert seen == pytest.approx([1e-3 / share for share in shares])
    assert Crafter().reduction == "mean"


class LinearPrior(nn.Module):
    """A generator whose images, 1 + Wz, the attacker finds in closed form, and a critic that knows nothing yet."""

    def __init__(self):
        super().__init__()
        self.weight = torch.randn(4, 16)
        self.judge = nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def sample_latent(self, n, generator):
        return torch.randn(n, 4, generator=generator)

    def generate(self, z):
        return (1 + z @ self.weight).reshape(-1, 1, 4, 4)

    def critic(self, x):
        return self.judge(x)[:, 0]


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.client = nn.Sequential(nn.Flatten(), nn.Linear(16, 8, bias=False))


@pytest.fixture(scope="module")
def craft():
    """What the loop makes of 24 unusual persons behind a linear encoder, and how far an attacker's images then are.

    ``craft(beta=1.0) -> (true features, crafted features, distance)``; ``craft.prior`` and ``craft.client`` made them.
    """
    with seeded(0):
        prior, model = LinearPrior(), Linear()
        unusual = 4 * nn.functional.normalize(torch.randn(24, 4))
        x = prior.generate(unusual) + 0.1 * torch.randn(24, 1, 4, 4)
    encoder = model.client[1].weight.detach()

    def distance(features):
        """Of the images that an attacker finds from the mean image."""
        z = (features - encoder.sum(1)) @ torch.linalg.pinv(prior.weight @ encoder.T)
        return float((prior.generate(z) - 1).square().mean())

    def make(amortiser=None, **options):
        defense = Crafter(
            **{
                "latent_dim": 4,
                "reduction": "sum",
                "steps": 80,
                "lr": 0.05,
                "terms": 60,
                "critic_steps": 5,
                "critic_lr": 5e-3,
                **options,
            }
        )
        defense.prior, defense.amortiser = prior, amortiser
        defense.attach(model, None)
        true = model.client(x).detach()
        with seeded(1), torch.no_grad():
            return true, defense.features(true), distance

    make.prior, make.client = prior, model.client
    return make


def test_the_attacker_searches_from_the_amortisers_guess(craft):
    def start(amortiser):
        def look(distance, features, z, steps, lr):
            return features, z, steps, lr, distance(features, z).detach()

        return inside(crafter, "invert", lambda: craft(amortiser, inner_steps=7, inner_lr=0.3), look)

    features, z, steps, lr, errors = start(lambda flat: 2 * flat[:, :4])
    assert torch.equal(z, 2 * features[:, :4]) and (steps, lr) == (7, 0.3)
    apart = craft.client(craft.prior.generate(z)).detach() - features
    torch.testing.assert_close(errors, 2000 * apart.square().mean(1))
    assert not start(None)[1].any()


def test_the_critic_learns_to_prefer_average_images(craft, monkeypatch):
    """Its loss is the score of inversions less that of generated images, here the sum of pixels: 100 for 0."""
    total = float(craft.prior.weight.sum())
    monkeypatch.setattr(LinearPrior, "critic", lambda self, x: x.flatten(1).sum(1) - 16)
    monkeypatch.setattr(crafter, "gradient_penalty", lambda *_: torch.zeros(()))

    def run():
        craft(lambda flat: flat.new_full((len(flat), 4), 100 / total), inner_lr=1e-6)

    taken = steps_of(crafter, run, 5)
    assert [loss for loss, _ in taken] == pytest.approx([100] * 5, abs=30)
    assert isinstance(taken[0][1], nn.Sequential), "and moves the critic alone"


def test_the_amortiser_learns_the_latent_behind_features(craft):
    """Measured: a mean squared error of 0.003; of a guess that has learned nothing 1."""
    defense = Crafter(latent_dim=4, amortiser_iterations=300)
    defense.prior = craft.prior
    with seeded(0):
        guess = defense._train_amortiser(craft.client, torch.Generator().manual_seed(0))
    z = torch.randn(200, 4, generator=torch.Generator().manual_seed(1))
    made = guess(craft.client(craft.prior.generate(z)).detach())
    assert float((made - z).square().mean()) < 0.1


def test_a_latent_search_sends_what_the_generator_can_have(craft):
    """Features of 8 entries behind a linear generator of 4 latents: the others are determined."""
    plane = (craft.prior.weight @ craft.client[1].weight.detach().T).T  # (8, 4)

    def beyond(features):
        offset = features - craft.client[1].weight.detach().sum(1)
        return float((offset - offset @ torch.linalg.pinv(plane).T @ plane.T).norm())

    true, sent, _ = craft(search="latent", steps=2)
    assert beyond(sent) < 1e-3 * sent.norm() and beyond(true) > 0.01 * true.norm()


def test_inversions_of_crafted_features_are_average_images(craft):
    """Distance from the mean image, relative to that of what true features give away.

    Measured: 0.21 of 0.5 allowed. Noise as long leaves 1.23, the loss without its privacy term 1.00.
    """
    true, crafted, distance = craft(beta=0.5)
    _, lazy, _ = craft(beta=1e9)
    moved = (crafted - true).norm(dim=1, keepdim=True)
    noise = torch.randn(true.shape, generator=torch.Generator().manual_seed(2))
    noisy = true + moved * noise / noise.norm(dim=1, keepdim=True)
    made, stub, still = (distance(features) / distance(true) for features in (crafted, noisy, lazy))
    assert made < 0.5 and min(stub, still) > 0.95, (made, stub, still)


def test_a_larger_beta_stays_nearer(craft):
    """Measured: 23.7, 19.7 and 6.3, of features as long as 30.6."""
    moved = [float((crafted - true).norm()) for true, crafted, _ in (craft(beta=beta) for beta in (0.1, 1.0, 10.0))]
    assert moved[0] > 1.1 * moved[1] > 2 * moved[2] > 0, moved


# On a trained network


@pytest.fixture(scope="module")
def trained(digits8, tmp_path_factory):
    """A trained Mlp cut after stage 0 behind a crafter: ``trained(beta=1.0) -> victim``; one training serves all."""
    from mibench.storage.store import Store
    from mibench.storage.workshop import Workshop

    workshop = Workshop(Store(tmp_path_factory.mktemp("crafter")), torch.device("cpu"))

    def make(defense=None, cut=0, **options):
        defense = defense or Crafter(**{**SHORT, **options})
        blueprint = Blueprint("mlp", lambda spec: Mlp(spec=spec, hidden=(48, 32)), Recipe(epochs=20, lr=5e-3), {})
        learner = {**SMALL, "idle": not getattr(defense, "steps", 0)}
        return train_central(
            blueprint, digits8.private, digits8, defense, workshop, {}, 0, "victim", learner=learner, cut=cut
        )

    make.workshop = workshop
    return make


def sent(victim, x):
    with seeded(0):
        return victim.sent(x)


def test_no_steps_leave_everything_bit_by_bit_as_it_is(trained, digits8):
    x = digits8.private.test.x
    idle, plain = trained(steps=0), trained(Defense())
    assert torch.equal(sent(idle, x), sent(plain, x)) and torch.equal(idle.predict_proba(x), plain.predict_proba(x))
    crafted = trained(steps=3)
    assert torch.equal(crafted.module(x), plain.module(x)), "the model itself is never changed"
    assert not torch.equal(sent(crafted, x), sent(plain, x))


def test_what_it_learned_comes_back_and_belongs_to_a_cut_and_its_public_images(trained, digits8):
    x = digits8.private.test.x[:20]
    first, again = trained(steps=3), trained(steps=3)
    assert torch.equal(sent(first, x), sent(again, x)) and "public" not in first.key
    later = trained(steps=3, cut=1)
    assert sent(later, x).shape == (20, 32)
    made = [
        one for one in trained.workshop.store.artifacts() if one.kind == "defense" and not one.key["learner"]["idle"]
    ]
    assert sorted(one.key["cut"] for one in made) == [0, 1]
    assert {one.key["public"] for one in made} == {digits8.public.digest()}
    assert len([one for one in trained.workshop.store.artifacts() if one.kind == "victim"]) == 1


def test_a_latent_search_sends_the_features_of_a_generated_image(trained, digits8):
    """Which an inversion meets, as it does not meet true features.

    Measured: a squared distance of 0.08 is left, of 1.66 with true features.
    """
    victim = trained(search="latent", beta=1.0)
    prior, encoder, x = victim.defense.prior, victim.module.client, digits8.private.test.x[:16]

    def distance(features, z):
        return (encoder(prior.generate(z)) - features).square().mean(1)

    z = {name: invert(distance, one, victim.defense.amortiser(one), 200, 0.05)
         for name, one in (("true", encoder(x).detach()), ("sent", sent(victim, x)))}  # fmt: skip
    left = {"true": distance(encoder(x), z["true"]).mean(), "sent": distance(sent(victim, x), z["sent"]).mean()}
    assert left["sent"] < 0.2 * left["true"], left


def test_it_needs_square_public_images(digits8):
    nothing = digits8.private.train[torch.arange(0)]
    model = Mlp(spec=digits8.spec)
    context = DefenseContext(digits8.spec, DefenderData(nothing, nothing, None), 0, torch.device("cpu"))
    with pytest.raises(UserError, match="public images"):
        Crafter().learn(model, context)
    oblong = dataclasses.replace(digits8.spec, shape=(1, 8, 16))
    with pytest.raises(UserError, match="defense=crafter needs square images"):
        Crafter().learn(
            model, dataclasses.replace(context, spec=oblong, data=DefenderData(nothing, nothing, digits8.public))
        )
