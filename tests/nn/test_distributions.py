import math

import pytest
import torch

from mibench.nn.distributions import Flow, Gaussian, Mixture


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def families(groups=2, dim=4):
    return {
        "gaussian": Gaussian(groups, dim, torch.device("cpu")),
        "mixture": Mixture(groups, dim, 3, draws()),
        "flow": Flow(groups, dim, 4, 8, draws()),
    }


def scrambled(name):
    """A family whose parameters are moved at random."""
    module, random = families()[name], draws(1)
    for parameter in module.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=random)
    return module.requires_grad_(False)


@pytest.mark.parametrize("name", families())
def test_the_divergence_is_not_negative_and_about_zero_at_the_start(name):
    _, divergence = families()[name].requires_grad_(False)(20_000, draws())
    assert float(divergence.abs().max()) < 0.05
    _, divergence = scrambled(name)(20_000, draws())
    assert float(divergence.min()) > 0.1


def test_a_flow_without_its_log_determinant_does_not_see_that_its_spread_collapses():
    flow = families()["flow"].requires_grad_(False)
    flow.map.log_scales -= 0.5
    z, divergence = flow(20_000, draws())
    assert float(z.std()) < 0.2
    assert float(divergence.min()) > 5  # exactly 4 (2 - 1/2 + e^-4 / 2)
    noise = torch.randn(2, 20_000, 4, generator=draws())
    stub = ((z.square() - noise.square()).sum(2) / 2).mean(1)
    assert float(stub.max()) < 0, "a Monte Carlo estimate without the determinant falls below zero"


def test_the_exact_divergence_of_a_gaussian_is_what_its_draws_estimate():
    gaussian = scrambled("gaussian")
    z, exact = gaussian(200_000, draws())
    factor = gaussian.factor.tril()
    own = torch.distributions.MultivariateNormal(
        gaussian.mean[:, 0], scale_tril=factor * factor.diagonal(dim1=1, dim2=2).sign()[:, None]
    )
    prior = torch.distributions.MultivariateNormal(torch.zeros(4), torch.eye(4))
    estimate = (own.log_prob(z.transpose(0, 1)) - prior.log_prob(z.transpose(0, 1))).mean(0)
    torch.testing.assert_close(exact, estimate, atol=0.02, rtol=0)


def test_a_mixtures_density_is_that_of_its_draws():
    mixture = scrambled("mixture")
    weights = torch.distributions.Categorical(logits=mixture.log_weights)
    factors = mixture.factors.tril()
    of_each = torch.distributions.MultivariateNormal(
        mixture.means, scale_tril=factors * factors.diagonal(dim1=-2, dim2=-1).sign()[..., None, :]
    )
    reference = torch.distributions.MixtureSameFamily(weights, of_each)
    z, _ = mixture(50_000, draws())
    torch.testing.assert_close(mixture.log_density(z).T, reference.log_prob(z.transpose(0, 1)), atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(z.mean(1), reference.mean, atol=0.03, rtol=0)


def test_the_choice_of_a_component_is_hard_and_its_weight_is_learnt():
    mixture = families(groups=1)["mixture"]
    mixture.means.data = torch.tensor([[[-50.0] * 4, [0.0] * 4, [50.0] * 4]])
    z, _ = mixture(500, draws())
    assert float((z.detach().abs() - 25).abs().min()) > 15, "no draw is a blend of components"
    (slope,) = torch.autograd.grad(z.mean(), mixture.log_weights)
    assert float(slope[0, 2]) > 0.1 and float(slope[0, 0]) < -0.1


def test_the_standard_normal_density():
    from mibench.nn.distributions import log_normal

    assert float(log_normal(torch.zeros(2))) == pytest.approx(-math.log(2 * math.pi))
