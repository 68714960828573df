import pytest
import torch
from exact import Spy, steps_of
from torch import nn
from torch.nn.functional import kl_div

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks import lomma
from mibench.attacks.base import ClassSearch
from mibench.attacks.gmi import Gmi
from mibench.attacks.kedmi import Kedmi
from mibench.attacks.lomma import Lomma, parts
from mibench.attacks.mi_face import MiFace
from mibench.attacks.plgmi import PlgMi
from mibench.cli.reproduction import Commands
from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import Classifier, LatentPrior
from mibench.nn.student import Student
from mibench.planning.composition import compose
from mibench.planning.grid import plan_cells
from mibench.planning.plan import plan_cell
from mibench.tasks.class_ import ClassGoal

SPEC = InputSpec("image", (1, 4, 4), classes=4)
GOAL = ClassGoal(torch.arange(4), samples=2)


class HiddenLayer(Classifier):
    """A network whose feature can grow without bound."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Sequential(nn.Flatten(), nn.Linear(16, 32), nn.ReLU())])
        self.head = nn.Linear(32, 4)


class WidePrior(LatentPrior):
    """``G(z) = 1/2 + A z``: what the search meets is not bounded, only the image that is returned."""

    name = "wide"
    latent_dim = 6

    def __init__(self):
        super().__init__()
        self.a = torch.randn(16, 6, generator=torch.Generator().manual_seed(2)) / 4
        self.last = torch.zeros(0)

    def generate(self, z):
        images = (0.5 + z @ self.a.T).reshape(-1, 1, 4, 4)
        if torch.is_grad_enabled():
            self.last = images.detach()
            return images
        return images.clamp(0, 1)

    def critic(self, x):
        return torch.zeros(len(x))


def attack(seed=0, **options):
    """Runs LOMMA over a GMI without a box; returns its view, its public images and the last images it looked at."""
    public = torch.rand(200, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    view = WhiteBoxView.of(HiddenLayer(), SPEC, Ledger(), torch.device("cpu"))
    prior = WidePrior()
    base = Gmi(iterations=options.pop("iterations", 1000), restarts=1, clip=1e6, batch=100, lr=0.02)
    lomma = Lomma(base=base, epochs=1, **{"students": 0, **options})
    knowledge = Knowledge(Examples(public, torch.zeros(200, dtype=torch.long)), prior)
    lomma(view, knowledge, GOAL, seed=seed)
    return view, public, prior.last


def growth(**options):
    """How long the last features are, in mean lengths of public ones."""
    view, public, last = attack(**options)
    with torch.no_grad():
        return float(
            view.logits_and_features(last)[1].norm(dim=1).mean()
            / view.logits_and_features(public)[1].norm(dim=1).mean()
        )


def one_pass(**options):
    """Returns a method, its networks after one pass, its view and its public images."""
    public = torch.rand(64, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    view = WhiteBoxView.of(HiddenLayer(), SPEC, Ledger(), torch.device("cpu"))
    method = Lomma(base=Gmi(), epochs=1, students=2, **options)
    return method, lambda: method.trained(view, Knowledge(Examples(public, torch.zeros(64).long())), 0), view, public


def test_students_learn_the_targets_soft_labels(monkeypatch):
    forward = Spy(Student.forward)
    monkeypatch.setattr(Student, "forward", lambda self, x: forward(self, x))
    rows = Spy(torch.randperm)
    monkeypatch.setattr(torch, "randperm", rows)
    _, train, view, public = one_pass()
    ((loss, _),) = steps_of(lomma, train, 1)
    soft = view.logits(public[rows.returned[-1]]).softmax(1)
    expected = kl_div(forward.returned[0].log_softmax(1), soft, reduction="batchmean")
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)


def test_the_identity_loss_is_that_of_the_docstring():
    """The mean of minus the logit over target and students, and the feature's distance from the public mean."""
    method, train, view, public = one_pass(regularisation=0.7)
    networks = train()
    images, labels = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(5)), torch.arange(4)
    with torch.no_grad():
        logits, hidden = view.logits_and_features(images)
        every = [logits, *(student(images) for student in networks["students"])]
        said = torch.stack([-one.gather(1, labels[:, None])[:, 0] for one in every]).mean(0)
        mean = view.logits_and_features(public)[1].mean(0)
        expected = said + 0.7 * (hidden - mean).square().mean(1)
        torch.testing.assert_close(method.identify(networks, view, images, labels), expected)
    assert len(every) == 3


def test_the_feature_term_keeps_the_logit_from_growing_by_length_alone():
    assert growth(regularisation=0.0) > 3
    assert growth(regularisation=1.0) < 2


def test_where_the_target_is_sure_the_search_goes_on_and_under_cross_entropy_it_does_not():
    def moved(loss):
        one, other = (attack(loss=loss, iterations=n, regularisation=0.0)[2] for n in (1500, 3000))
        return float((one - other).abs().max())

    assert moved("logit") > 2 * moved("cross_entropy")


def test_students_change_the_search_and_come_from_public_images_alone():
    alone, with_students = attack(iterations=3)[2], attack(iterations=3, students=2)[2]
    assert not torch.allclose(alone, with_students, atol=1e-4)


def distilled(digits8, trained_cnn, white_box, **options):
    view = white_box(trained_cnn, digits8)
    lomma = Lomma(base=Gmi(iterations=1, restarts=1), students=1, **options)
    networks = lomma.trained(view, Knowledge(digits8.public, WidePrior()), 0)
    test = digits8.public.x
    with torch.no_grad():
        wanted = view.logits(test).softmax(1)
        (student,) = parts(networks)[0]
        said = student(test).softmax(1)
    return float((said.argmax(1) == wanted.argmax(1)).double().mean())


def test_a_student_answers_as_the_target_does(digits8, trained_cnn, white_box):
    assert distilled(digits8, trained_cnn, white_box, epochs=60, lr=0.05) > 0.75
    assert distilled(digits8, trained_cnn, white_box, epochs=1, lr=1e-9) < 0.6, "one that learned nothing does not"


def test_a_step_of_a_student_goes_along_the_divergence_over_the_squared_temperature():
    """Of the logits s of a linear student: (softmax(s / tau) - softmax(t / tau)) / tau / tau^2, a mean over images."""
    torch.manual_seed(0)
    public, answers, tau = torch.rand(6, 1, 4, 4), 5 * torch.randn(6, 4), 2.0
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 4, bias=False))
    before, said = student[1].weight.detach().clone(), student(public).detach()
    Lomma(base=Gmi(), epochs=1, batch_size=6, lr=0.1, temperature=tau).distil(student, public, answers)
    apart = ((said / tau).softmax(1) - (answers / tau).softmax(1)) / tau**3
    slope = apart.T @ public.flatten(1) / 6 + 1e-4 * before
    torch.testing.assert_close(student[1].weight.detach(), before - 0.1 * slope)


def test_the_students_learning_rate_is_halved_every_20_epochs(monkeypatch):
    rates = []
    monkeypatch.setattr(lomma, "step_along", lambda sgd, loss, student: rates.append(sgd.param_groups[0]["lr"]))
    student = nn.Sequential(nn.Flatten(), nn.Linear(16, 4))
    Lomma(base=Gmi(), epochs=41, lr=0.1).distil(student, torch.rand(6, 1, 4, 4), torch.rand(6, 4))
    assert rates == pytest.approx([0.1] * 20 + [0.05] * 20 + [0.025])


def test_over_a_base_that_does_not_clip_latents_are_clipped():
    assert Kedmi().clip is None and Lomma(base=Kedmi()).base.clip == 1.0
    assert Lomma(base=Kedmi(clip=0.5)).base.clip == 0.5 and Lomma(base=Gmi(clip=2.0)).base.clip == 2.0
    assert Lomma(base=Kedmi(), clip=None).base.clip is None and not hasattr(Lomma(base=PlgMi()).base, "clip")
    z = Lomma(base=Kedmi()).base.draw(torch.zeros(500, 2), torch.ones(500, 2), torch.Generator().manual_seed(0))
    assert float(z.abs().max()) == 1.0


def test_the_reference_is_the_mean_or_one_draw_per_image():
    mean, again, drawn = (attack(iterations=3, reference=one)[2] for one in ("mean", "mean", "sample"))
    assert torch.equal(mean, again) and not torch.allclose(mean, drawn, atol=1e-5)


def test_only_an_attack_with_an_identity_loss_can_be_wrapped():
    with pytest.raises(UserError, match="'mi_face' has none"):
        Lomma(base=MiFace())
    assert issubclass(Gmi, ClassSearch)


def test_the_card_derives_from_what_is_wrapped_and_the_command_brings_it_back():
    plan = plan_cell(compose(["attack=lomma", "attack.base.iterations=7"]))
    assert plan.cards.attack.needs == ("public", "prior") and plan.config["prior"]["name"] == "wgan_gp"
    (planned,) = plan_cells([("attack=lomma",)])
    assert planned.choices["prior"] == "wgan_gp" and not planned.reason
    (refused,) = plan_cells([("attack=lomma", "prior=none")])
    assert "latent space" in refused.reason
    made = Commands()(plan.description)
    assert "attack.base.iterations=7" in made.command and not made.changed
