import pytest
import torch

from mibench.access import LabelsView, Ledger, ScoresView
from mibench.attacks import brepmi
from mibench.attacks.brepmi import BrepMi
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.model import LatentPrior
from mibench.optim.descent import in_chunks
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 2, 4), classes=3)
CENTRE = torch.full((8,), 0.4)
BALL = ClassGoal(torch.tensor([1]), samples=5)


class Identity(LatentPrior):
    """Images are latents; draws come with those of the ball first, the farthest from its centre foremost."""

    name = "identity"
    latent_dim = 8

    def generate(self, z):
        return ((z + 8) / 16).reshape(-1, 1, 2, 4)

    def critic(self, x):
        return torch.zeros(len(x))

    def sample_latent(self, n, generator):
        z = super().sample_latent(n, generator).clamp(-1.5, 1.5)
        apart = distance(z)
        return z[torch.where(apart < 1.6, apart, -apart).argsort(descending=True)]


def distance(z):
    return (z - CENTRE).norm(dim=1)


def latents(result):
    return result.reconstruction.values.flatten(1) * 16 - 8


class Flipped(BrepMi):
    """A stub: drawn to the boundary."""

    @staticmethod
    def push(of_class, u):
        return -BrepMi.push(of_class, u)


def run(goal=BALL, method=BrepMi, change=lambda scores: scores, budget=None, seed=0, **options):
    """Attacks a classifier of which class 1 is a ball of radius 1.6, class 2 nothing and class 0 the rest."""

    def ask(x):
        apart = distance(x.flatten(1) * 16 - 8)
        return change(torch.stack([apart / 1.6, torch.ones_like(apart), torch.zeros_like(apart)], 1))

    view = ScoresView(SPEC, Ledger(budget), torch.device("cpu"), ask).narrow()
    options = {"radius": 0.3, "patience": 60, "iterations": 1000, **options}
    return method(**options)(view, Knowledge(latent_prior=Identity()), goal, seed=seed)


def reached(method):
    """Returns the distances at the start and at the end, and by which factor the radii grew."""
    start = latents(run(method=method, budget=256))
    result = run(method=method)
    return distance(start), distance(latents(result)), -result.reconstruction.loss / 0.3


class Thrown(BrepMi):
    """A stub that is thrown out of the ball at every step."""

    @staticmethod
    def push(of_class, u):
        return -30 * torch.ones_like(u[:, 0])


def test_a_step_out_of_the_class_is_rejected():
    """Thrown far away at every step, searches stay where they began; a step that is taken would leave the ball."""
    assert bool((distance(latents(run(method=Thrown, iterations=5))) < 1.6 + 1e-4).all())


class Pushed(BrepMi):
    """A stub that is pushed the same way at every step, hard in the last dimension."""

    way = torch.tensor([0.1] * 7 + [40.0])

    @staticmethod
    def push(of_class, u):
        return Pushed.way.expand(len(u), -1)


@pytest.mark.parametrize(("radius", "length"), [(0.6, 0.2), (30.0, 3.0)])
@pytest.mark.parametrize(("grows", "steps"), [(True, 1), (False, 2)])
def test_the_answer_is_where_the_sphere_last_grew_or_the_last_point(monkeypatch, radius, length, grows, steps):
    """A step is min(R / 3, 3) long and ends in the box, where it begins too; of two steps the first alone grows."""
    asked = []

    def ask(self, x):
        asked.append(len(x))
        return torch.full((len(x),), int(len(x) != 5 * 32 or (grows and asked.count(5 * 32) == 1)))

    options = {"radius": radius, "bound": 1.0}
    monkeypatch.setattr(LabelsView, "query", lambda self, x: torch.ones(len(x), dtype=torch.long))
    start = latents(run(**options, iterations=1))  # nothing pushes where all is of the class
    monkeypatch.setattr(LabelsView, "query", ask)
    expected = (start + steps * length * Pushed.way).clamp(-1.0, 1.0)
    torch.testing.assert_close(latents(run(**options, method=Pushed, iterations=2)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("inside", "grows"), [(24, False), (25, True), (28, True)])
def test_the_radius_grows_where_more_than_the_stated_share_is_inside(monkeypatch, inside, grows):
    """Of 32 points of a sphere 24 are three quarters, and not more."""

    def answers(function, size, *tensors):
        if len(tensors) == 1:
            return in_chunks(function, size, *tensors)
        count = len(tensors[0])
        return torch.ones(count, dtype=torch.bool) if count == 5 else torch.arange(32).repeat(count // 32) < inside

    monkeypatch.setattr(brepmi, "in_chunks", answers)
    result = run(iterations=1, inside=0.75, points=32, radius=2.0, growth=1.3)
    torch.testing.assert_close(result.reconstruction.loss, torch.full((5,), -2.6 if grows else -2.0))


def test_latents_leave_the_boundary_and_the_sphere_grows():
    """Measured: from 1.5 to 1.6 down to 0.29 to 0.47, seven growths; drawn to the boundary, 1.5 to 1.6, one at most."""
    before, after, grew = reached(BrepMi)
    assert (before > 1.4).all()
    assert (after < 0.7).all() and (grew > 1.3**4.9).all()
    before, after, grew = reached(Flipped)
    assert (after > before - 0.1).all() and (grew < 1.3**1.1).all()


@pytest.mark.parametrize("change", [lambda scores: scores**3, lambda scores: (5 * scores).softmax(1)])
def test_only_the_label_counts(change):
    """A change of the scores that leaves their order alone leaves the search as it is, to the bit."""
    result = run(change=change)
    assert torch.equal(result.reconstruction.values, run().reconstruction.values)
    assert not torch.equal(result.reconstruction.values, run(seed=1).reconstruction.values)


def test_queries_are_the_draws_and_33_per_iteration_of_a_search_that_goes_on():
    result = run(ClassGoal(torch.tensor([1]), samples=1), patience=1000, iterations=40)
    assert result.ledger["queries"] == {"prepare": 0, "initialise": 256, "optimise": 40 * 33, "select": 0}
    grown = []

    class Watched(BrepMi):
        @staticmethod
        def push(of_class, u):
            grown.append(of_class.float().mean(1) > 0.875)
            return BrepMi.push(of_class, u)

    one = run(ClassGoal(torch.tensor([1]), samples=1), method=Watched)
    last = max(step for step, each in enumerate(grown, 1) if each.any())
    assert len(grown) == last + 60 and one.ledger["queries"]["optimise"] == 33 * len(grown)
    grown.clear()
    five = run(method=Watched)
    assert five.ledger["queries"]["optimise"] == 33 * sum(map(len, grown))
    assert [len(each) for each in grown] == sorted((len(each) for each in grown), reverse=True)
    assert len(grown[-1]) < 5


@pytest.mark.parametrize(("inside", "growths"), [(28, 0), (29, 1)])
def test_the_sphere_grows_where_the_sum_of_the_decisions_is_above_three_quarters(monkeypatch, inside, growths):
    """Of 32 points 28 inside and 4 outside sum to 24, which is 0.75 of 32 and no more; 29 and 3 sum to 26."""
    asked = []

    def ask(self, x):
        asked.append(len(x))
        named = torch.ones(len(x), dtype=torch.long)
        if len(x) == 32:
            named[inside:] = 0
        return named

    monkeypatch.setattr(LabelsView, "query", ask)
    result = run(ClassGoal(torch.tensor([1]), samples=1), iterations=1)
    assert asked == [256, 32, 1]
    assert -result.reconstruction.loss == pytest.approx(0.3 * 1.3**growths)
    assert (sum([1] * inside + [-1] * (32 - inside)) > 0.75 * 32) == bool(growths)


def test_every_result_is_of_its_class_and_in_the_box():
    for result in (run(iterations=1), run(iterations=30), run()):
        z = latents(result)
        assert (distance(z) < 1.6).all() and (z.abs() <= 1.5 + 1e-5).all()
    assert float(latents(run(budget=256)).abs().max()) > 1.4
    assert float(latents(run(budget=256, bound=1.0)).abs().max()) == pytest.approx(1.0, abs=1e-5)


def test_a_class_that_no_draw_meets_is_a_failure():
    result = run(ClassGoal(torch.tensor([2, 1]), samples=3), draws_=512)
    assert result.reconstruction.missing.tolist() == [True] * 3 + [False] * 3
    assert result.ledger["queries"]["initialise"] == 512
    assert (distance(latents(result)[3:]) < 0.7).all()


def test_fewer_starts_than_samples_are_begun_from_again():
    goal = ClassGoal(torch.tensor([1]), samples=200)
    start = latents(run(goal, budget=256, draws_=256))
    assert 1 < len(start.unique(dim=0)) < 200 and (distance(start) < 1.6).all()
    assert len(latents(run(goal, draws_=256, iterations=3)).unique(dim=0)) > 2 * len(start.unique(dim=0))


def test_a_spent_budget_leaves_how_far_each_has_come():
    result = run(budget=256 + 33 * 5 * 30)
    assert "budget" in result.stopped and not result.reconstruction.missing.any()
    assert torch.equal(result.reconstruction.values, run(iterations=30).reconstruction.values)


def test_labels_are_all_there_is_to_see():
    view = ScoresView(SPEC, Ledger(), torch.device("cpu"), lambda x: torch.rand(len(x), 3)).narrow()
    assert view.query(torch.rand(4, 1, 2, 4)).dtype == torch.long
    assert not any(hasattr(view, name) for name in ("logits", "model", "narrow"))
