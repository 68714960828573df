import torch

from mibench.access import Ledger, NoView
from mibench.attacks.random_prior import RandomPrior
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.model import LatentPrior
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 16, 16), classes=4)


class Sigmoid(LatentPrior):
    """Images that give their latent away: ``G(z) = sigmoid(z)``."""

    name = "sigmoid"
    latent_dim = 256

    def __init__(self, centre_only=False):
        super().__init__()
        self.centre_only = centre_only

    def generate(self, z):
        return z.sigmoid().reshape(-1, 1, 16, 16)

    def critic(self, x):
        return x.flatten(1).mean(1)

    def sample_latent(self, n, generator):
        return super().sample_latent(n, generator) * (not self.centre_only)


def attack(prior, seed=0):
    view = NoView(SPEC, Ledger(), torch.device("cpu"))
    return RandomPrior()(view, Knowledge(latent_prior=prior), ClassGoal(torch.tensor([2, 0]), 5), seed=seed)


def is_standard_normal(images):
    z = images.logit()
    return abs(float(z.mean())) < 0.1 and abs(float(z.std()) - 1) < 0.1


def test_its_images_are_independent_samples_of_the_prior():
    images = attack(Sigmoid()).reconstruction.values
    assert is_standard_normal(images)
    assert len(images.unique(dim=0)) == 10
    assert not is_standard_normal(attack(Sigmoid(centre_only=True)).reconstruction.values)


def test_its_images_are_those_of_the_seed():
    first, again, other = (attack(Sigmoid(), seed).reconstruction.values for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.allclose(first, other, atol=0.1)


def test_it_asks_the_victim_nothing():
    ledger = attack(Sigmoid()).ledger
    assert sum(ledger["queries"].values()) == 0


def test_control_and_victim_give_the_same_number(make_cell):
    cell = make_cell("attack=random_prior", "dataset.size=8", "prior.iterations=2")
    torch.testing.assert_close(cell.control.values, cell.result.reconstruction.values, rtol=0, atol=0)
    assert cell.facts().queries == 0
