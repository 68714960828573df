import copy
import dataclasses

import pytest
import torch
from exact import inside
from torch import nn

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.families import style_start
from mibench.attacks.ppa import Ppa
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import Classifier
from mibench.optim import style_search
from mibench.optim.identity import identity_loss
from mibench.optim.selection import spread_ranks
from mibench.optim.style_search import best_styles, painted, random_styles, target_scores
from mibench.tasks.class_ import ClassGoal

GOAL = ClassGoal(torch.arange(4), samples=2)
FAST = {"latents": 200, "candidates": 5, "selected": None, "iterations": 30, "lr": 0.03, "rounds": 5}


def view_of(model, spec):
    return WhiteBoxView.of(model, spec, Ledger(), torch.device("cpu"))


def probability(view, images, labels):
    with torch.no_grad():
        return view.logits(images).softmax(1).gather(1, labels[:, None])[:, 0]


SPEC = InputSpec("image", (1, 8, 8), 4)


def attack(prior, model, **options):
    view = view_of(model, SPEC)
    return view, Ppa(**{**FAST, **options})(view, Knowledge(latent_prior=prior), GOAL, seed=0)


def test_the_descent_starts_at_the_best_and_sees_crops_under_the_poincare_loss(style_prior, mild_classifier):
    method, view = Ppa(**FAST), view_of(mild_classifier, SPEC)

    def look(prior, variables, identity, steps, **options):
        best = best_styles(view, prior, method.pool(view, prior, GOAL), torch.arange(4), 5)
        torch.testing.assert_close(variables[0], best)
        images, labels = torch.rand(20, 1, 8, 8), torch.arange(4).repeat_interleave(5)
        expected = identity_loss("poincare")(mild_classifier(images), labels)
        torch.testing.assert_close(identity(images), expected)
        assert options["views"].scale == (0.9, 1.0) and options["lr"] == 0.03
        assert options.get("betas", style_search.BETAS) == (0.1, 0.1) and len(list(steps)) == 30

    run = lambda: method(view, Knowledge(latent_prior=style_prior), GOAL, seed=0)  # noqa: E731
    inside(style_start, "style_descent", run, look)


def test_the_pools_styles_are_truncated_by_psi(style_prior, mild_classifier):
    """They lie at half the distance from the mean style of what they are without."""
    view = view_of(mild_classifier, SPEC)

    def apart(psi):
        method = Ppa(**FAST, psi=psi)
        run = lambda: method(view, Knowledge(latent_prior=style_prior), GOAL, seed=0)  # noqa: E731
        pool = inside(style_start, "best_styles", run, lambda view, prior, pool, *more: pool)
        return pool - style_prior.mean_style

    half, whole = apart(0.5), apart(1.0)
    torch.testing.assert_close(half, 0.5 * whole)
    assert len(whole) == 200 and float(whole.std()) > 0.01


def test_the_results_are_those_of_the_highest_robust_score(style_prior, mild_classifier, monkeypatch):
    """Nothing descends, and the scores under views are given: the last candidates of every class win."""
    method, view, seen = Ppa(**FAST), view_of(mild_classifier, SPEC), []
    monkeypatch.setattr(style_start, "style_descent", lambda prior, variables, *how, **more: variables)

    def scores(score, part, wanted, views, rounds, draws):
        seen.append((views.scale, views.ratio, rounds))
        return torch.arange(float(len(part)))

    monkeypatch.setattr(style_start, "robust_score", scores)
    found = method(view, Knowledge(latent_prior=style_prior), GOAL, seed=0).reconstruction.values
    best = best_styles(view, style_prior, method.pool(view, style_prior, GOAL), torch.arange(4), 5)
    torch.testing.assert_close(found, painted(style_prior, best[torch.tensor([4, 3, 9, 8, 14, 13, 19, 18])]))
    assert seen == [((0.5, 0.9), (0.8, 1.2), 5)]


def test_the_loss_does_not_see_the_scale_of_logits_and_does_not_vanish():
    logits = torch.tensor([[35.0, 0.0, -3.0, 1.0]], requires_grad=True)
    label = torch.tensor([0])

    def slope(name, scale=1.0):
        values = identity_loss(name)(scale * logits, label)
        return values.detach(), float(torch.autograd.grad(values.sum(), logits)[0].norm() * 39)  # times the l1 norm

    assert torch.allclose(slope("poincare")[0], slope("poincare", 7.0)[0], atol=1e-5)
    assert slope("poincare")[1] > 1
    assert not torch.allclose(slope("cross_entropy", 0.1)[0], slope("cross_entropy", 0.7)[0], atol=1e-5)
    assert slope("cross_entropy")[1] < 1e-6


def test_the_candidates_score_higher_than_random_styles(style_prior, mild_classifier):
    view, draws = view_of(mild_classifier, SPEC), torch.Generator().manual_seed(0)
    w = random_styles(style_prior, 200, 0.5, None, draws)
    scores = target_scores(view, style_prior.synthesise(w[:, None].expand(-1, style_prior.num_ws, -1)).clamp(0, 1))
    best = best_styles(view, style_prior, w, torch.arange(4), 10)
    images = style_prior.synthesise(best[:, None].expand(-1, style_prior.num_ws, -1)).clamp(0, 1)
    labels = torch.arange(4).repeat_interleave(10)
    chosen = probability(view, images, labels).reshape(4, 10)
    assert (chosen.mean(1) > scores.mean(0) + 0.1 * (1 - scores.mean(0))).all()
    assert all(len(one.unique(dim=0)) == 10 for one in best.reshape(4, 10, -1))
    assert not (scores[:10].mean(0) > scores.mean(0) + 0.1 * (1 - scores.mean(0))).any()  # the first ten, as a stub


def test_mirror_images_are_asked_only_where_they_show_the_same_class(mild_classifier):
    images = torch.rand(6, 1, 8, 8)
    plain, mirrored = view_of(mild_classifier, SPEC), view_of(mild_classifier, dataclasses.replace(SPEC, mirrored=True))
    assert torch.equal(target_scores(plain, images), plain.logits(images).softmax(1))
    assert plain.ledger.queries == 12 and not torch.equal(target_scores(mirrored, images), target_scores(plain, images))
    assert torch.allclose(target_scores(mirrored, images), target_scores(mirrored, images.flip(3)), atol=1e-6)


def test_the_descent_raises_the_score_and_leaves_generator_alone(style_prior, mild_classifier):
    before = copy.deepcopy(style_prior.state_dict())
    labels = GOAL.labels
    raised = {}
    for iterations, lr in ((30, 0.03), (1, 1e-9)):
        scores = []
        for model in (mild_classifier, type(mild_classifier)(gain=0.5, seed=1)):  # two targets, one generator
            view, result = attack(style_prior, model, iterations=iterations, lr=lr)
            scores.append(probability(view, result.reconstruction.values, labels).mean())
        raised[iterations] = float(torch.stack(scores).mean())
    assert 1 - raised[30] < 0.7 * (1 - raised[1])  # a stub that does not move its styles is rejected
    assert all(torch.equal(value, before[name]) for name, value in style_prior.state_dict().items())


class Spike(Classifier):
    """Sure of class 0 where one pixel is exactly one value; otherwise by the brightness of the image."""

    def __init__(self):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Flatten()])
        self.head = nn.Identity()

    def forward(self, x):
        x = self.normalise(x)
        spike = (-((x[:, 0, 0, 0] - 0.9) ** 2) / 1e-4).exp() * (x.flatten(1).std(1) > 0.05)
        own = 4 * x.mean((1, 2, 3)) + 10 * spike
        return torch.stack([own, torch.full_like(own, 2.0)], 1)


def kept(rounds):
    """Returns the mean brightness of what is kept of a bright image and of a dark one with the spike."""
    bright, spiked = torch.full((8, 8), 0.7), torch.full((8, 8), 0.1)
    spiked[0, 0] = 0.9
    pictures = torch.stack([bright, spiked])[:, None]

    class Two:
        num_ws, chunk = 1, 256

        def synthesise(self, ws, state=None, start=0):
            return pictures[ws[:, 0, 0].long()]

    view = view_of(Spike(), InputSpec("image", (1, 8, 8), 2))
    method, goal = Ppa(latents=2, candidates=2, selected=None, rounds=rounds), ClassGoal(torch.tensor([0]), samples=1)
    ranked = torch.tensor([[1.0], [0.0]])  # by plain confidence: the spike first
    assert probability(view, pictures, torch.zeros(2, dtype=torch.long)).argmax() == 1
    return float(method._select(view, Two(), ranked, goal).values.mean())


def test_a_spike_that_holds_for_one_rendering_only_is_not_kept():
    assert kept(rounds=50) > 0.6
    assert kept(rounds=0) < 0.2  # choosing by plain confidence


@pytest.mark.parametrize("rounds", [3, 0])
@pytest.mark.parametrize(("selected", "ranks"), [(None, [0, 1]), (2, [0, 1]), (4, [1, 3]), (8, [2, 6])])
def test_what_is_returned_represents_the_selection_and_not_its_best(selected, ranks, rounds):
    """Of eight plain images of two classes, the brighter the surer of class 0 and the darker the surer of class 1."""
    bright = torch.linspace(0.1, 0.9, 8)

    class Plain:
        num_ws, chunk = 1, 256

        def synthesise(self, ws, state=None, start=0):
            return ws[:, 0].clamp(0, 1)[..., None, None].expand(-1, 1, 8, 8)

    view = view_of(Spike(), InputSpec("image", (1, 8, 8), 2))
    method = Ppa(latents=8, candidates=8, selected=selected, rounds=rounds)
    shuffled = torch.randperm(8, generator=torch.Generator().manual_seed(0)) if rounds else torch.arange(8)
    found = torch.cat([bright.flip(0)[shuffled], bright[shuffled]])[:, None]
    made = method._select(view, Plain(), found, ClassGoal(torch.tensor([0, 1]), samples=2))
    torch.testing.assert_close(made.values[:, 0, 0, 0], torch.cat([bright.flip(0)[ranks], bright[ranks]]))


def test_the_paper_selects_50_of_200_and_a_selection_smaller_than_the_samples_is_refused(style_prior, mild_classifier):
    assert (Ppa().candidates, Ppa().selected) == (200, 50)
    assert spread_ranks(50, 5).tolist() == [5, 15, 25, 35, 45] and spread_ranks(50, 50).tolist() == list(range(50))
    with pytest.raises(UserError, match=r"attack\.selected"):
        attack(style_prior, mild_classifier, selected=1)
    with pytest.raises(UserError, match=r"attack\.selected"):
        attack(style_prior, mild_classifier, selected=6)


def test_more_samples_than_candidates_are_refused(style_prior, mild_classifier):
    with pytest.raises(UserError, match="candidates"):
        attack(style_prior, mild_classifier, candidates=1)


def test_the_styles_of_two_batches_are_those_of_one(style_prior, mild_classifier):
    options = {"crop": 1 - 1e-9, "rounds": 0, "iterations": 3}
    one, two = (attack(style_prior, mild_classifier, **options, batch=n)[1] for n in (1000, 7))
    assert torch.allclose(one.reconstruction.values, two.reconstruction.values, atol=1e-3)
