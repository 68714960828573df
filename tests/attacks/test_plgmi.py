import torch
from exact import inside
from torch import nn

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks import plgmi
from mibench.attacks.plgmi import PlgMi
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.model import Classifier, ClassPrior
from mibench.optim.identity import max_margin
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 8, 8), classes=4)
LABELS = torch.arange(4).repeat_interleave(4)


class LinearClassifier(Classifier):
    """Remembers the images it was asked of."""

    def __init__(self):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Sequential(nn.AvgPool2d(2), nn.Flatten())])
        self.head = nn.Linear(16, 4)
        nn.init.normal_(self.head.weight, 0, 10, generator=torch.Generator().manual_seed(1))
        self.head.bias.data = -0.5 * self.head.weight.data.sum(1)  # undecided on grey
        self.normalise.register_forward_pre_hook(lambda _module, inputs: ASKED.append(inputs[0].detach()))


class ClassLinearPrior(ClassPrior):
    """``G(z, y) = sigmoid(A_y z)``; remembers the latents and the classes it was given."""

    name = "linear"
    latent_dim = 6
    classes = 4

    def __init__(self):
        super().__init__()
        self.a = torch.randn(4, 64, 6, generator=torch.Generator().manual_seed(2))
        self.seen = []

    def generate_class(self, z, labels):
        self.seen.append((z.detach().clone(), labels))
        return torch.einsum("nij,nj->ni", self.a[labels], z).sigmoid().reshape(-1, 1, 8, 8)

    def critic_class(self, x, labels):
        raise AssertionError("the search has no prior term")


ASKED = []


def attack(seed=0, **options):
    ASKED.clear()
    view = WhiteBoxView.of(LinearClassifier(), SPEC, Ledger(), torch.device("cpu"))
    prior = ClassLinearPrior()
    goal = ClassGoal(torch.arange(4), samples=4)
    result = PlgMi(**{"iterations": 60, **options})(view, Knowledge(latent_prior=prior), goal, seed=seed)
    return view, prior, result


def margin_gained(**options):
    view, prior, result = attack(**options)
    with torch.no_grad():
        before, after = (
            max_margin(view.logits(images), LABELS).mean()
            for images in (prior.generate_class(*prior.seen[0]), result.reconstruction.values)
        )
    return float(before - after)


def test_what_descends_is_the_margin_of_two_random_views_of_the_own_class():
    def look(start, objective, steps, lr, after):
        assert start[0].shape == (16, 6) and float(start[0].std()) > 0.7 and not torch.equal(start[0][0], start[0][1])
        ASKED.clear()
        z = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
        value, (first, second) = objective(z).detach(), ASKED
        images = ClassLinearPrior().generate_class(z, LABELS)
        with torch.no_grad():
            expected = sum(max_margin(LinearClassifier()(one), LABELS) for one in (first, second))
        torch.testing.assert_close(value, expected)
        assert not torch.equal(first, second) and not torch.equal(first, images)
        assert lr == 0.1

    inside(plgmi, "adam_descent", attack, look)


def test_the_margin_grows_past_where_cross_entropy_is_content():
    assert margin_gained() > 18
    assert not margin_gained(identity="cross_entropy") > 18
    assert not margin_gained(lr=1e-4) > 18  # a search that does not move


def test_the_class_stays_and_latents_are_not_clipped():
    _, prior, result = attack()
    assert all(torch.equal(labels, LABELS) for _, labels in prior.seen)
    assert torch.equal(result.reconstruction.target, LABELS)
    assert float(prior.seen[-1][0].abs().max()) > 3


def test_every_sample_starts_from_its_own_latent():
    _, prior, _ = attack(iterations=1)
    assert len(prior.seen[0][0].unique(dim=0)) == len(LABELS)


def test_the_target_is_asked_of_two_views_of_each_image():
    _, prior, result = attack(iterations=1)
    image = ClassLinearPrior().generate_class(*prior.seen[0])
    first, second = ASKED[:2]
    assert first.shape == second.shape == image.shape and len(ASKED) == 2
    assert not torch.allclose(first, second) and not torch.allclose(first, image)
    assert sum(result.ledger["gradients"].values()) == 2 * len(LABELS)


def test_the_loss_is_the_one_that_a_wrapper_puts_in_its_place():
    """As LOMMA does: every label read as class 0 leads all samples to class 0."""
    method, view = PlgMi(iterations=60), attack(iterations=1)[0]
    method.replaced = lambda own, images, labels: max_margin(own.logits(images), torch.zeros_like(labels))
    goal, prior = ClassGoal(torch.arange(4), samples=4), ClassLinearPrior()
    images = method(view, Knowledge(latent_prior=prior), goal, seed=0).reconstruction.values
    assert (view.logits(images).argmax(1) == 0).all()
    assert (view.logits(attack()[2].reconstruction.values).argmax(1) == LABELS).all()
