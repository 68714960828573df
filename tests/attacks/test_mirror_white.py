import pytest
import torch
from torch import nn
from torch.nn.functional import leaky_relu

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.mirror_white import MirrorWhite, usual_styles
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.optim.style_search import painted, random_styles
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 8, 8), 4)
GOAL = ClassGoal(torch.arange(4), samples=3)


class Fixed(Classifier):
    """Classes by random directions of the pixels."""

    def __init__(self):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Flatten()])
        self.head = nn.Linear(64, 4)
        self.head.weight.data = 0.5 * torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
        self.head.bias.data = -0.5 * self.head.weight.data.sum(1)


class Recorded:
    """The generator, which remembers the styles that were synthesised with a gradient."""

    def __init__(self, prior, monkeypatch):
        self.seen, synthesise = [], prior.synthesise

        def remember(ws, *rest):
            if ws.requires_grad:
                self.seen.append(ws[:, 0].detach().clone())
            return synthesise(ws, *rest)

        monkeypatch.setattr(prior, "synthesise", remember)


def attack(prior, **options):
    view = WhiteBoxView.of(Fixed(), SPEC, Ledger(), torch.device("cpu"))
    method = MirrorWhite(**{"latents": 400, "iterations": 60, "lr": 0.1, **options})
    images = method(view, Knowledge(latent_prior=prior), GOAL, seed=0).reconstruction.values
    with torch.no_grad():
        losses = nn.functional.cross_entropy(view.logits(images), GOAL.labels, reduction="none")
    pool = random_styles(prior, method.latents, method.psi, method.cutoff, method.draws(view.device, "latents"))
    return images, losses, pool


def stays_usual(prior, monkeypatch, deviations):
    """Whether every style of a descent lies between the bounds of one deviation, on both sides."""
    with monkeypatch.context() as patch:
        seen = Recorded(prior, patch).seen
        _, _, pool = attack(prior, deviations=deviations)
    low, high = usual_styles(pool, 1.0)
    assert len(seen) == 60 and (low < high).all()
    return bool(((torch.stack(seen) >= low) & (torch.stack(seen) <= high)).all())


def test_every_style_lies_between_both_bounds_at_every_step(style_prior, monkeypatch):
    assert stays_usual(style_prior, monkeypatch, 1.0)
    assert not stays_usual(style_prior, monkeypatch, 3.0)


def test_p_space_and_back_is_the_style():
    w = torch.randn(100, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(leaky_relu(leaky_relu(w, 5.0), 0.2), w, atol=1e-6)
    assert not torch.allclose(leaky_relu(leaky_relu(w, 5.0), 0.5), w, atol=1e-6)  # the way back with another slope


def covered(prior, deviations):
    """Returns the share of fresh styles inside the bounds, averaged over the dimensions."""
    pool, fresh = (random_styles(prior, 4000, 1.0, None, torch.Generator().manual_seed(seed)) for seed in (0, 1))
    low, high = usual_styles(pool, deviations)
    return float(((fresh >= low) & (fresh <= high)).float().mean())


def test_one_deviation_covers_two_thirds_of_fresh_styles(style_prior):
    assert 0.60 < covered(style_prior, 1.0) < 0.76
    assert not 0.60 < covered(style_prior, 2.0) < 0.76


def test_no_deviation_leaves_the_mean_style(style_prior):
    def is_mean(deviations):
        images, _, pool = attack(style_prior, deviations=deviations, iterations=5)
        mean = leaky_relu(leaky_relu(pool, 5.0).mean(0), 0.2)
        return torch.allclose(images, painted(style_prior, mean[None]).expand_as(images), atol=1e-4)

    assert is_mean(0.0)
    assert not is_mean(1.0)


def test_the_loss_falls_from_the_best_of_the_pool(style_prior):
    before, after = (attack(style_prior, iterations=n)[1].mean() for n in (1, 60))
    assert after < 0.8 * before


def test_what_is_returned_is_the_best_style_met(style_prior, monkeypatch):
    with monkeypatch.context() as patch:
        recorded = Recorded(style_prior, patch)
        images = attack(style_prior, iterations=20, lr=1.0)[0]  # steps too long to end at the best
    seen, model = torch.stack(recorded.seen), Fixed()
    with torch.no_grad():
        drawn = style_prior.synthesise(seen.flatten(0, 1)[:, None].expand(-1, style_prior.num_ws, -1))
        losses = nn.functional.cross_entropy(model(drawn), GOAL.labels.repeat(20), reduction="none").reshape(20, -1)
    best = seen[losses.argmin(0), torch.arange(len(GOAL.labels))]
    assert torch.allclose(images, painted(style_prior, best), atol=1e-5)
    assert not torch.allclose(images, painted(style_prior, seen[-1]), atol=1e-5)  # a stub that returns the last


def test_the_step_size_rises_and_falls():
    method = MirrorWhite(iterations=100)
    assert [round(method.ramp(step), 3) for step in (0, 5, 50, 75)] == [0.0, 1.0, 1.0, 1.0]
    assert 0 < method.ramp(99) < 0.01


def test_a_pool_smaller_than_the_samples_is_refused(style_prior):
    with pytest.raises(UserError, match="latents"):
        attack(style_prior, latents=2)
