import dataclasses

import pytest
import torch
from exact import inside
from torch.nn.functional import leaky_relu

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks import mirror_white
from mibench.attacks.mirror_white import MirrorWhite, usual_styles
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.identity import cross_entropy
from mibench.optim.style_search import best_styles, painted, random_styles
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 8, 8), 4)
GOAL = ClassGoal(torch.arange(4), samples=3)


class Recorded:
    """The generator, which remembers the styles that were synthesised with a gradient."""

    def __init__(self, prior, monkeypatch):
        self.seen, synthesise = [], prior.synthesise

        def remember(ws, *rest):
            if ws.requires_grad:
                self.seen.append(ws[:, 0].detach().clone())
            return synthesise(ws, *rest)

        monkeypatch.setattr(prior, "synthesise", remember)


@pytest.fixture
def attack(style_prior, mild_classifier):
    """Runs the attack; returns images, their losses and the random pool."""

    def run(**options):
        view = WhiteBoxView.of(mild_classifier, SPEC, Ledger(), torch.device("cpu"))
        method = MirrorWhite(**{"latents": 400, "iterations": 60, "lr": 0.1, **options})
        images = method(view, Knowledge(latent_prior=style_prior), GOAL, seed=0).reconstruction.values
        with torch.no_grad():
            losses = cross_entropy(view.logits(images), GOAL.labels)
        return images, losses, method.pool(view, style_prior, GOAL)

    return run


def stays_usual(attack, prior, monkeypatch, deviations):
    """Whether every style of a descent lies between the bounds of one deviation, on both sides."""
    with monkeypatch.context() as patch:
        seen = Recorded(prior, patch).seen
        _, _, pool = attack(deviations=deviations)
    low, high = usual_styles(pool, 1.0)
    assert len(seen) == 60 and (low < high).all()
    return bool(((torch.stack(seen) >= low) & (torch.stack(seen) <= high)).all())


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_descent_starts_at_the_best_under_the_stated_schedule(style_prior, mild_classifier, mirrored):
    """Starts, weighted cross-entropy, views, the box, and the factor of the step size at five points."""
    spec = dataclasses.replace(SPEC, mirrored=mirrored)
    view = WhiteBoxView.of(mild_classifier, spec, Ledger(), torch.device("cpu"))
    method = MirrorWhite(latents=400, iterations=1000)

    def look(prior, variables, identity, steps, **options):
        pool = method.pool(view, prior, GOAL)
        low, high = usual_styles(pool, 1.0)
        best = best_styles(view, prior, pool, GOAL.targets, 3)
        torch.testing.assert_close(variables[0], best.clamp(low, high))
        images = torch.rand(12, 1, 8, 8)
        torch.testing.assert_close(identity(images), 10 * cross_entropy(mild_classifier(images), GOAL.labels))
        wild = 5 * torch.randn(12, 16)
        assert torch.equal(options["project"]([wild])[0], wild.clamp(low, high))
        assert options["views"].mirror == (0.5 if mirrored else 0.0) and options["lr"] == 0.25
        return [options["schedule"](step) for step in (0, 25, 50, 750, 875)]

    run = lambda: method(view, Knowledge(latent_prior=style_prior), GOAL, seed=0)  # noqa: E731
    factors = inside(mirror_white, "style_descent", run, look)
    assert factors == pytest.approx([0.0, 0.5, 1.0, 1.0, 0.5])


def test_p_space_is_where_styles_are_normal():
    """Of styles that leave a leaky ReLU the bounds are mean and deviation before it."""
    normal = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, 1.0, -1.0])
    low, high = usual_styles(leaky_relu(normal, 0.2), 2.0)
    expected = [leaky_relu(torch.tensor([0.0, 1.0, -1.0]) + sign * 2.0, 0.2) for sign in (-1, 1)]
    torch.testing.assert_close(low, expected[0], atol=0.05, rtol=0)
    torch.testing.assert_close(high, expected[1], atol=0.05, rtol=0)


def test_every_style_lies_between_both_bounds_at_every_step(attack, style_prior, monkeypatch):
    assert stays_usual(attack, style_prior, monkeypatch, 1.0)
    assert not stays_usual(attack, style_prior, monkeypatch, 3.0)


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


def test_no_deviation_leaves_the_mean_style(attack, style_prior):
    def is_mean(deviations):
        images, _, pool = attack(deviations=deviations, iterations=5)
        mean = leaky_relu(leaky_relu(pool, 5.0).mean(0), 0.2)
        return torch.allclose(images, painted(style_prior, mean[None]).expand_as(images), atol=1e-4)

    assert is_mean(0.0)
    assert not is_mean(1.0)


def test_the_loss_falls_from_the_best_of_the_pool(attack):
    before, after = (attack(iterations=n)[1].mean() for n in (1, 60))
    assert after < 0.8 * before


def test_what_is_returned_is_the_best_style_met(attack, style_prior, mild_classifier, monkeypatch):
    with monkeypatch.context() as patch:
        recorded = Recorded(style_prior, patch)
        images = attack(iterations=20, lr=1.0)[0]  # steps too long to end at the best
    seen = torch.stack(recorded.seen)
    with torch.no_grad():
        drawn = style_prior.synthesise(seen.flatten(0, 1)[:, None].expand(-1, style_prior.num_ws, -1))
        losses = cross_entropy(mild_classifier(drawn), GOAL.labels.repeat(20)).reshape(20, -1)
    best = seen[losses.argmin(0), torch.arange(len(GOAL.labels))]
    assert torch.allclose(images, painted(style_prior, best), atol=1e-5)
    assert not torch.allclose(images, painted(style_prior, seen[-1]), atol=1e-5)  # a stub that returns the last


def test_the_releases_choice_is_the_styles_after_the_step_of_a_classs_lowest_mean_loss(
    attack, style_prior, monkeypatch
):
    steps, descend = [], mirror_white.style_descent

    def watched(*words, after, **options):
        def look(moving, losses):
            steps.append((moving[0].clone().reshape(4, 3, -1), losses.reshape(4, 3)))
            after(moving, losses)

        return descend(*words, after=look, **options)

    monkeypatch.setattr(mirror_white, "style_descent", watched)
    images = attack(iterations=20, lr=1.0, returned="batch")[0]
    after, losses = (torch.stack(part) for part in zip(*steps, strict=True))
    best, classes = losses.mean(2).argmin(0), torch.arange(4)
    assert torch.allclose(images, painted(style_prior, after[best, classes].flatten(0, 1)), atol=1e-6)
    before = after[best - 1, classes].flatten(0, 1)
    assert not torch.allclose(images, painted(style_prior, before), atol=1e-3)
    alone = after[losses.argmin(0), classes[:, None], torch.arange(3)].flatten(0, 1)
    assert not torch.allclose(images, painted(style_prior, alone), atol=1e-3)


def test_the_step_size_rises_and_falls():
    method = MirrorWhite(iterations=100)
    assert [round(method.ramp(step), 3) for step in (0, 5, 50, 75)] == [0.0, 1.0, 1.0, 1.0]
    assert 0 < method.ramp(99) < 0.01


def test_a_pool_smaller_than_the_samples_is_refused(attack):
    with pytest.raises(UserError, match="latents"):
        attack(latents=2)
