import torch
from torch import nn
from torch.nn.functional import cross_entropy

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.gmi import Gmi
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.model import Classifier, LatentPrior
from mibench.tasks.class_ import ClassGoal

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
