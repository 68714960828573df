import pytest
import torch
from exact import inside
from torch import nn
from torch.nn.functional import cross_entropy

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.families import latent_descent
from mibench.attacks.gmi import Gmi, GmiMasked
from mibench.data import InputSpec
from mibench.entry import Normalise
from mibench.knowledge import Knowledge
from mibench.model import Classifier, LatentPrior
from mibench.priors.base import RangedPrior
from mibench.tasks.class_ import ClassGoal
from mibench.tasks.completion import CompletionGoal, hole_mask

SPEC = InputSpec("image", (1, 4, 4), classes=4)


class LinearClassifier(Classifier):
    def __init__(self):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Flatten()])
        self.head = nn.Linear(16, 4)
        nn.init.normal_(self.head.weight, 0, 10, generator=torch.Generator().manual_seed(1))
        self.head.bias.data = -0.5 * self.head.weight.data.sum(1)  # undecided on grey


class LinearPrior(LatentPrior):
    """``G(z) = 1/2 + A z``, inside [0, 1] for every z of the box; remembers the latents it was given.

    Its critic likes what the classifier calls class ``taste``.
    """

    name = "linear"
    latent_dim = 6

    def __init__(self, taste=0, same_start=False):
        super().__init__()
        draws = torch.Generator().manual_seed(2)
        a = torch.randn(16, 6, generator=draws)
        self.a = a / (2 * a.abs().sum(1, keepdim=True))
        self.taste = nn.functional.normalize(LinearClassifier().head.weight[taste].detach(), dim=0)
        self.same_start = same_start
        self.seen = []

    def generate(self, z):
        self.seen.append(z.detach().clone())
        return (0.5 + z @ self.a.T).reshape(-1, 1, 4, 4).clamp(0, 1)

    def critic(self, x):
        return x.flatten(1) @ self.taste

    def sample_latent(self, n, generator):
        z = super().sample_latent(n, generator)
        return z[:1].expand(n, -1).clone() if self.same_start else z


def attack(prior, goal=None, **options):
    torch.manual_seed(0)
    view = WhiteBoxView.of(LinearClassifier(), SPEC, Ledger(), torch.device("cpu"))
    goal = goal or ClassGoal(torch.arange(4), samples=2)
    options = {"iterations": 200, "restarts": 1, **options}
    images = Gmi(**options)(view, Knowledge(latent_prior=prior), goal, seed=0).reconstruction.values
    return view, images


def test_what_descends_is_critic_and_cross_entropy_by_nesterov_steps():
    """The loss at given latents, every start another one, and what the descent is told."""
    prior = LinearPrior()

    def look(z, loss, steps, **options):
        assert len(z) == 8 and len(z.unique(dim=0)) == 8
        given = torch.rand(8, 6, generator=torch.Generator().manual_seed(1))
        images = (0.5 + given @ prior.a.T).reshape(-1, 1, 4, 4)
        surprise = cross_entropy(LinearClassifier()(images), torch.arange(4).repeat_interleave(2), reduction="none")
        torch.testing.assert_close(loss(given), 3.0 * surprise - 0.5 * prior.critic(images))
        assert {name: options[name] for name in ("lr", "momentum", "bound", "batch")} == {
            "lr": 0.02, "momentum": 0.9, "bound": 1.0, "batch": 100,
        }  # fmt: skip

    inside(latent_descent, "nesterov_descent", lambda: attack(prior, identity_weight=3.0, prior_weight=0.5), look)


def test_a_prior_of_decibels_is_searched_as_one_of_images():
    """The classifier takes decibels, the prior is stretched to them, and the latents go the same way."""
    spec = InputSpec("audio", (1, 4, 4), classes=4, low=-80.0, high=0.0)
    listener = LinearClassifier()
    listener.normalise = Normalise(torch.full((1,), -80.0), torch.full((1,), 80.0))
    view = WhiteBoxView.of(listener, spec, Ledger(), torch.device("cpu"))
    prior, goal = RangedPrior(LinearPrior(), spec), ClassGoal(torch.arange(4), samples=2)
    made = Gmi(iterations=50, restarts=1)(view, Knowledge(latent_prior=prior), goal, seed=0).reconstruction.values
    _, images = attack(LinearPrior(), goal, iterations=50)
    assert torch.allclose(made, 80 * images - 80, atol=0.05)
    assert not torch.allclose(images, attack(LinearPrior(), goal, iterations=1)[1], atol=0.05)


def cross_entropy_fell(**options):
    """Returns by which share the mean cross-entropy fell from the first step to the result."""
    prior = LinearPrior()
    view, images = attack(prior, **options)
    labels = torch.arange(4).repeat_interleave(2)
    with torch.no_grad():
        before = cross_entropy(view.logits(prior.generate(prior.seen[0])), labels)
        after = cross_entropy(view.logits(images), labels)
    return 1 - float(after / before)


def test_cross_entropy_falls_by_more_than_nine_tenths():
    assert cross_entropy_fell() > 0.9


def test_cross_entropy_does_not_fall_where_the_identity_has_no_weight():
    assert cross_entropy_fell(identity_weight=0.0) < 0.5


def stays_in_box(**options):
    """Whether every latent after the first step lies in [-1, 1]; the start is not clipped."""
    prior = LinearPrior()
    attack(prior, **options)
    assert len(prior.seen) > 200
    return all(float(z.abs().max()) <= 1 for z in prior.seen[1:])


def test_the_latent_stays_in_its_box_at_every_step():
    assert stays_in_box()
    assert not stays_in_box(clip=2.0)


def test_without_identity_the_critic_rises_and_the_class_is_not_reached():
    goal = ClassGoal(torch.tensor([2]), samples=8)
    prior = LinearPrior()
    view, images = attack(prior, goal, identity_weight=0.0, prior_weight=100.0)
    start = prior.critic(prior.generate(prior.seen[0].clamp(-1, 1))).mean()
    assert float(prior.critic(images).mean()) > float(start) + 0.1
    assert float(view.logits(images).softmax(1)[:, 2].max()) < 0.5
    _, recognised = attack(LinearPrior(), goal)
    assert float(view.logits(recognised).softmax(1)[:, 2].min()) > 0.5  # the same check rejects the whole attack


def latents_differ_between_critics(**options):
    results = []
    for taste in (0, 1):
        prior = LinearPrior(taste)
        attack(prior, **options)
        results.append(prior.seen[-1])
    return not torch.allclose(*results, atol=1e-3)


def test_the_critic_matters():
    assert latents_differ_between_critics()


def test_a_stub_that_ignores_the_critic_finds_the_same_latents():
    assert not latents_differ_between_critics(prior_weight=0.0)


def starts_differ(prior):
    attack(prior, iterations=1)
    return len(prior.seen[0].unique(dim=0)) == len(prior.seen[0])


def test_every_sample_starts_from_its_own_latent():
    assert starts_differ(LinearPrior())
    assert not starts_differ(LinearPrior(same_start=True))


def test_restarts_are_chosen_by_the_targets_score_of_the_class_id():
    goal = ClassGoal(torch.tensor([3, 1]), samples=6)
    prior = LinearPrior()
    view, images = attack(prior, goal, iterations=2, restarts=4)
    candidates = prior.generate(prior.seen[-1])
    scores = view.logits(candidates).log_softmax(1)
    assert len(candidates) == 4 * len(images)

    def best(labels):
        own = scores.gather(1, labels.repeat_interleave(4)[:, None]).reshape(-1, 4)
        return candidates[own.argmax(1) + 4 * torch.arange(len(own))]

    torch.testing.assert_close(images, best(goal.labels))
    position = torch.arange(2).repeat_interleave(6)  # the authors' script: score[i, i]
    assert not torch.allclose(images, best(position))


# gmi_masked

MASKED = CompletionGoal(
    torch.full((4, 1, 8, 8), 0.5).masked_fill(hole_mask("centre", 8, 8), 0.0), hole_mask("centre", 8, 8)
)


def masked_attack(classifier, prior, labels=None, **options):
    view = WhiteBoxView.of(classifier, InputSpec("image", (1, 8, 8), 4), Ledger(), torch.device("cpu"))
    knowledge = Knowledge(latent_prior=prior, facts={} if labels is None else {"labels": labels})
    options = {"iterations": 200, "restarts": 1, "batch": 10, **options}
    return view, GmiMasked(**options)(view, knowledge, MASKED, seed=0)


WANTED = torch.tensor([3, 1, 0, 2])


def hole_loss_fell(classifier, prior, **options):
    """Returns by which share the mean cross-entropy of the granted labels fell from the first step to the result."""
    view, result = masked_attack(classifier, prior, WANTED, **options)
    with torch.no_grad():
        start = torch.where(MASKED.hole, prior.fill(MASKED.images, MASKED.hole, prior.seen[0]), MASKED.images)
        before, after = (cross_entropy(view.logits(x), WANTED) for x in (start, result.reconstruction.values))
    return 1 - float(after / before)


def test_the_hole_is_filled_towards_the_granted_label(linear_classifier, linear_inpainting):
    assert hole_loss_fell(linear_classifier, linear_inpainting()) > 0.5
    assert hole_loss_fell(linear_classifier, linear_inpainting(), identity_weight=0.0) < 0.1


def test_the_latents_of_holes_stay_in_the_box(linear_classifier, linear_inpainting):
    prior = linear_inpainting()
    masked_attack(linear_classifier, prior, WANTED)
    assert all(float(z.abs().max()) <= 1 for z in prior.seen[2:]) and len(prior.seen) > 200


@pytest.mark.parametrize("critic", ["taste", "local_taste"])
def test_both_critics_pull(critic, linear_classifier, linear_inpainting):
    """Under a critic that likes bright pixels the hole becomes brighter; without its weight it does not."""

    def brightness(**options):
        prior = linear_inpainting(**{critic: 300.0})
        _, result = masked_attack(linear_classifier, prior, WANTED, identity_weight=0.0, **options)
        assert len(set(prior.windows)) > 10
        return float(result.reconstruction.values[..., 2:6, 2:6].mean())

    assert brightness() > 0.55
    assert brightness(prior_weight=0.0) < 0.55


def test_the_answer_bears_the_granted_label_or_that_of_the_starts(linear_classifier, linear_inpainting):
    prior = linear_inpainting()
    view, result = masked_attack(linear_classifier, prior, restarts=5, iterations=2)
    starts = prior.fill(MASKED.images.repeat_interleave(5, 0), MASKED.hole, prior.seen[0])
    mean = view.logits(starts).softmax(1).reshape(4, 5, 4).mean(1)
    assert torch.equal(result.reconstruction.labels, mean.argmax(1))
    assert result.ledger["queries"]["initialise"] == 20
    _, granted = masked_attack(linear_classifier, linear_inpainting(), WANTED, restarts=5, iterations=2)
    assert torch.equal(granted.reconstruction.labels, WANTED) and granted.ledger["queries"]["initialise"] == 0
    assert not torch.equal(mean.argmax(1), WANTED)


def test_of_all_restarts_the_surest_filling_is_returned(linear_classifier, linear_inpainting):
    prior = linear_inpainting()
    view, result = masked_attack(linear_classifier, prior, WANTED, restarts=4, iterations=2)
    fillings = prior.fill(MASKED.images.repeat_interleave(4, 0), MASKED.hole, prior.seen[-1])
    scores = view.logits(fillings).log_softmax(1).gather(1, WANTED.repeat_interleave(4)[:, None]).reshape(4, 4)
    best = fillings.unflatten(0, (4, 4))[torch.arange(4), scores.argmax(1)]
    assert torch.equal(result.reconstruction.values, best)
    assert not torch.equal(best, fillings[::4])


def test_a_generator_that_paints_over_known_pixels_is_refused(linear_classifier, linear_inpainting):
    masked_attack(linear_classifier, linear_inpainting(), iterations=1)
    with pytest.raises(ValueError, match="outside the hole"):
        masked_attack(linear_classifier, linear_inpainting(paints=True), iterations=1)


def test_the_control_victim_is_attacked_without_the_labels_of_private_people(make_cell, tmp_path):
    words = ("attack=gmi_masked", "dataset.size=8", "prior.iterations=1", "attack.iterations=1")
    cell = make_cell(*words, "knowledge.labels=true", folder=tmp_path)
    view = cell.observe(cell.victim, cell.split.private).view
    own, _ = cell.knowledge_of(cell.victim, cell.split.private, view)
    other, _ = cell.knowledge_of(cell.victim, cell.split.held_out, view)
    assert torch.equal(own.fact("labels"), cell.truth.y) and not other.granted("labels")
    assert cell.knowledge.names() == ("public", "prior:inpainting_gan", "masked_image:centre", "labels")
    assert not make_cell(*words, folder=tmp_path).knowledge.granted("labels")
