import pytest
import torch
from exact import inside

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks import ifgmi
from mibench.attacks.ifgmi import OFFICIAL_WIDTH, Ifgmi
from mibench.data import InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.optim.augmentation import Views
from mibench.optim.identity import poincare
from mibench.optim.style_search import best_styles
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 8, 8), 4)
GOAL = ClassGoal(torch.arange(4), samples=2)


@pytest.fixture
def attack(style_prior, mild_classifier, monkeypatch):
    """Runs the attack, unaugmented; returns images, and of every step the block, styles, features and losses."""
    synthesise = style_prior.synthesise

    def run(**options):
        steps, model = [], mild_classifier

        def remember(ws, state=None, start=0):
            images = synthesise(ws, state, start)
            if torch.is_grad_enabled():
                hidden = None if state is None else state.hidden.detach().clone()
                with torch.no_grad():
                    steps.append((start, ws[:, 0].detach().clone(), hidden, poincare(model(images), GOAL.labels)))
            return images

        monkeypatch.setattr(style_prior, "synthesise", remember)
        view = WhiteBoxView.of(model, SPEC, Ledger(), torch.device("cpu"))
        defaults = {
            "latents": 100,
            "starts": None,
            "stages": 2,
            "first_steps": 20,
            "later_steps": 20,
            "radii": [1000.0, 2000.0],
            "lr": 0.02,
        }
        monkeypatch.setattr(Ifgmi, "views", Views())
        result = Ifgmi(**{**defaults, **options})(view, Knowledge(latent_prior=style_prior), GOAL, seed=0)
        return result.reconstruction.values, steps

    return run


def far(steps):
    """Returns the largest l1 distance from the second stage's start, of styles and of features."""
    later = [step for step in steps if step[0] == 1]
    return [max(float((step[k] - later[0][k]).abs().flatten(1).sum(1).max()) for step in later) for k in (1, 2)]


def test_the_descent_starts_among_the_best_and_sees_crops_under_the_poincare_loss(style_prior, mild_classifier):
    view = WhiteBoxView.of(mild_classifier, SPEC, Ledger(), torch.device("cpu"))
    method = Ifgmi(latents=100, stages=2)

    def look(prior, variables, identity, steps, **options):
        best = best_styles(view, prior, method.pool(view, prior, GOAL), torch.arange(4), 50).unflatten(0, (4, 50))
        near = (variables[0].unflatten(0, (4, 2))[:, :, None] - best[:, None]).abs().amax(3).amin(2)
        assert float(near.max()) < 1e-5, "a start is not in the better half"
        images = torch.rand(8, 1, 8, 8)
        torch.testing.assert_close(identity(images), poincare(mild_classifier(images), GOAL.labels))
        assert options["views"].scale == (0.9, 1.0)
        wild, centre = 900 * torch.randn(8, 16), variables[0]
        bound = (options["project"]([wild])[0] - centre).abs().sum(1)
        assert bool((bound <= 1000.0 * 16 / OFFICIAL_WIDTH * (1 + 1e-4)).all())

    run = lambda: method(view, Knowledge(latent_prior=style_prior), GOAL, seed=0)  # noqa: E731
    inside(ifgmi, "style_descent", run, look)


def test_styles_and_features_move_and_stay_in_their_balls(attack, style_prior):
    free, bound = attack(radii=[None, None])[1], attack(radii=[None, 20.0])[1]
    widths = style_prior.w_dim, bound[-1][2].shape[1]
    limits = [20.0 * width / OFFICIAL_WIDTH * (1 + 1e-4) for width in widths]
    assert all(0 < moved <= limit for moved, limit in zip(far(bound), limits, strict=True))
    assert all(moved > limit for moved, limit in zip(far(free), limits, strict=True))  # a stub that does not project


def test_where_no_later_stage_may_move_the_result_is_the_first_stages(attack):
    first = attack(stages=1, radii=[None])[0]
    assert torch.allclose(attack(radii=[None, 1e-9])[0], first, atol=1e-5)
    assert not torch.allclose(attack(radii=[None, None])[0], first, atol=1e-3)


def test_a_stage_starts_where_the_last_one_ended_and_the_loss_falls(attack):
    _, steps = attack(radii=[None, None])
    first, later = ([step[3].mean() for step in steps if step[0] == stage] for stage in (0, 1))
    alone = attack(stages=1, first_steps=21, radii=[None])[1]
    assert torch.allclose(later[0], alone[-1][3].mean(), atol=1e-4)  # the loss after 20 steps of the first stage
    assert later[-1] < later[0] < first[0]
    assert not torch.allclose(first[0], later[0], atol=1e-4)  # a stage that forgets the first one starts there


def test_the_starts_represent_the_best_styles_whatever_the_number_of_samples(
    attack, style_prior, mild_classifier, monkeypatch
):
    assert (Ifgmi().starts, Ifgmi().latents) == (50, 5000)
    view = WhiteBoxView.of(mild_classifier, SPEC, Ledger(), torch.device("cpu"))

    def first(starts):
        return attack(starts=starts, stages=1, first_steps=1)[1][0][1]

    pools, draw = [], Ifgmi.pool
    monkeypatch.setattr(Ifgmi, "pool", lambda *words: pools.append(draw(*words)) or pools[-1])
    first(None)
    ranked = best_styles(view, style_prior, pools[0], GOAL.targets, 12).unflatten(0, (4, 12))
    for starts, ranks in ((None, [0, 1]), (5, [1, 3]), (12, [3, 9])):
        assert torch.equal(first(starts), ranked[:, ranks].flatten(0, 1))
    with pytest.raises(UserError, match=r"attack\.starts"):
        attack(starts=1)


def test_every_stage_needs_a_radius():
    with pytest.raises(UserError, match="radius"):
        Ifgmi(stages=3, radii=[1.0])


def test_more_stages_than_blocks_are_refused(attack):
    with pytest.raises(UserError, match="blocks"):
        attack(stages=5, radii=[None] * 5)
