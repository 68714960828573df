"""Fixtures that tests of several attacks share."""

import pytest
import torch
from torch import nn

from mibench.access import GradientsView, Ledger, WhiteBoxView
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.model import Classifier, InpaintingPrior, LatentPrior
from mibench.planning.catalogue import conf_dir, entries
from mibench.priors.style_gan import StyleGan
from mibench.seeding import seeded
from mibench.targets.lenet import LeNet
from mibench.tasks.class_ import ClassGoal


@pytest.fixture(scope="session")
def style_prior():
    """A style-based generator of random weights: its images differ enough for a classifier to tell them apart."""
    with seeded(0):
        network = StyleGan(latent_dim=16, w_dim=16, layers=2, base=128, width=16).network(
            InputSpec("image", (1, 8, 8), 4)
        )
    network.mean_style.copy_(network.mapping(torch.randn(500, 16)).mean(0).detach())
    return network.eval().requires_grad_(False)


CPU = torch.device("cpu")

#: What tests that ask how an attack behaves, and not what it finds, cut its options to.
FEW = {"iterations": 8, "epochs": 1, "training_steps": 4, "hidden": 16, "num_candidates": 2, "prototypes": 16}

#: What it is for single attacks: schedules come one after the other, images are denoised every ten steps, an outer step
#: of L-BFGS is many, every companion is trained, and DAGER reads blocks of texts that are shorter than a model is wide.
OWN = {
    "ci_net": {"attack.overparameterisation": 1.0},
    "dager": {"target.depth": 3, "attack.rank_cutoff": 2},
    "dlg": {"attack.iterations": 2, "attack.inner": 5},
    "emi": {"knowledge.companions": "[mlp]"},
    "gradinversion": {"target": "cnn", "attack.iterations": 4, "attack.warmup": 2},
    "idlg": {"attack.iterations": 2, "attack.inner": 5},
    "lomma": {"attack.base.iterations": 8, "attack.images": 200, "prior.iterations": 4},
    "mi_face_denoise": {"attack.iterations": 20, "attack.hidden": "[32,16]"},
    "sgi": {"attack.iterations": 24},
}


@pytest.fixture(scope="session")
def few_steps():
    """The words that make an attack and its prior short, and the clients few: ``few_steps("gmi")``.

    A WGAN has twenty steps, because BREP-MI starts only from images that the victim takes for their class.
    """
    nodes = {entry.name: entry.node for entry in entries("attack")}

    def words(name):
        yaml = (conf_dir() / "attack" / f"{name}.yaml").read_text()
        cut = {f"attack.{key}": value for key, value in FEW.items() if key in nodes[name]} | OWN.get(name, {})
        prior = [f"prior.iterations={20 if 'wgan_gp' in yaml else 4}"] if "/prior@" in yaml else []
        clients = ["setting.clients=2"] if ": federated\n" in yaml else []
        return [*(f"{key}={value}" for key, value in cut.items()), *prior, *clients]

    return words


class LinearInpainting(InpaintingPrior):
    """Fills the hole of 8x8 images with ``1/2 + A z``, inside [0, 1] for every z of the box; remembers its latents.

    Args:
        taste: How much the global critic likes bright pixels.
        local_taste: How much the local one does, which looks at a window of 4x4 pixels.
        paints: Whether it paints over the known pixels too.
    """

    name, shape, latent_dim = "linear", (1, 8, 8), 6

    def __init__(self, taste=0.0, local_taste=0.0, paints=False):
        super().__init__()
        a = torch.randn(64, 6, generator=torch.Generator().manual_seed(2))
        self.a = a / (2 * a.abs().sum(1, keepdim=True))
        self.taste, self.local_taste, self.paints = taste, local_taste, paints
        self.seen, self.windows = [], []

    def fill(self, masked, hole, z):
        self.seen.append(z.detach().clone())
        made = (0.5 + z @ self.a.T).reshape(-1, 1, 8, 8).clamp(0, 1)
        return made if self.paints else torch.where(hole, made, masked)

    def critic(self, x):
        return self.taste * x.mean((1, 2, 3))

    def local_critic(self, x, draws):
        top, left = torch.randint(5, (2,), generator=draws).tolist()
        self.windows.append((top, left))
        return self.local_taste * x[..., top : top + 4, left : left + 4].mean((1, 2, 3))


class LinearClassifier(Classifier):
    """Four classes by random directions of the pixels, undecided on grey."""

    def __init__(self, gain=6.0, seed=1):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Flatten()])
        self.head = nn.Linear(64, 4)
        nn.init.normal_(self.head.weight, 0, gain, generator=torch.Generator().manual_seed(seed))
        self.head.bias.data = -0.5 * self.head.weight.data.sum(1)


class FirstOrderView(GradientsView):
    """A stub whose gradients cannot be differentiated again."""

    def gradients(self, x, y):
        return {name: value.detach() + 0 * (x.sum() + y.sum()) for name, value in super().gradients(x, y).items()}


@pytest.fixture(scope="session")
def one_client():
    """The view of one client whose model gives the mean gradient of a batch: ``one_client(model, x, y, spec)``.

    Parameters that take no part in the loss have a gradient of zeros.
    """

    def make(model, x, y, spec):
        named = dict(model.named_parameters())
        loss = nn.functional.cross_entropy(model(x), y)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
        return GradientsView.of(model, [dict(zip(named, found, strict=True))], len(x), spec, Ledger(), CPU)

    return make


@pytest.fixture
def spend(digits_view):
    """Attacks two images under a budget, checks that it is spent and leaves images: ``spend(attack, 20)``."""

    def run(attack, budget):
        view, _ = digits_view(LeNet, 2)
        view.ledger.budget = budget
        result = attack(view)
        assert view.ledger.queries == budget
        assert not bool(result.missing.any())
        return result

    return run


@pytest.fixture(scope="session")
def first_order_view():
    """A view whose gradients cannot be differentiated again."""
    return FirstOrderView


@pytest.fixture(scope="session")
def nearest_errors():
    """Mean squared error of every private image and the nearest that came back: ``nearest_errors(result, secret)``."""
    return lambda result, secret: (
        torch.cdist(secret.x.flatten(1), result.values.flatten(1)).square().min(1).values / secret.x[0].numel()
    )


@pytest.fixture(scope="session")
def exact():
    """How many examples came back to the pixel and with the right label: ``exact(result, secret)``."""
    return lambda result, secret: int(
        ((squared_errors(result.values, secret.x) < 1e-6) & (result.labels == secret.y)).sum()
    )


@pytest.fixture(scope="session")
def gain(digits8):
    """By how many dB images are closer to the secret than the mean of all private ones: ``gain(images, secret)``."""
    mean = digits8.private.train.x.mean(0)
    return lambda images, secret: (
        10 * (squared_errors(mean.expand_as(secret.x), secret.x) / squared_errors(images, secret.x)).log10()
    )


@pytest.fixture(scope="session")
def gradient_distances():
    """Cosine distance of every message and the gradient of a batch: ``gradient_distances(view, images, labels)``."""

    def measure(view, images, labels):
        size = view.batch_size
        sent = [torch.cat([part.flatten() for part in message.values()]) for message in view.messages]
        batches = zip(images.split(size), labels.split(size), strict=True)
        ours = [torch.cat([part.flatten() for part in view.gradient(x, y).values()]) for x, y in batches]
        return 1 - torch.cosine_similarity(torch.stack(sent), torch.stack(ours).detach())

    return measure


@pytest.fixture
def linear_inpainting():
    """Makes a linear inpainting prior."""
    return LinearInpainting


@pytest.fixture
def linear_classifier():
    """A linear classifier of 8x8 images."""
    return LinearClassifier()


@pytest.fixture
def mild_classifier():
    """A linear classifier of 8x8 images that is sure of few."""
    return LinearClassifier(gain=0.5, seed=0)


class Readable(LatentPrior):
    """``G(z) = 1/2 + z / 20``, from which z can be read again; its critic likes the first entry large."""

    name, latent_dim = "readable", 4

    #: For every class a latent, far from the others'.
    wanted = torch.tensor([[1.0, -0.5, 0.3, 0.0], [0.0, 0.0, 0.0, 0.0], [-1.0, 1.0, 0.5, 0.2], [0.5, 0.5, -0.5, -0.5]])

    def generate(self, z):
        return (0.5 + z / 20).reshape(-1, 1, 2, 2).clamp(0, 1)

    def critic(self, x):
        return self.latent(x)[:, 0]

    def latent(self, images):
        return 20 * (images.flatten(1) - 0.5)

    def to_wanted(self, view, images, labels):
        """A stand-in for the identity loss: half the squared distance of the latent to the class's wanted one."""
        return (self.latent(images) - self.wanted[labels]).square().sum(1) / 2

    def attack(self, method, model, samples, identity=None):
        """Returns the view of ``model`` and the images that a method finds, where asked under another identity loss."""
        classes = model.head.out_features
        view = WhiteBoxView.of(model, InputSpec("image", (1, 2, 2), classes), Ledger(), torch.device("cpu"))
        method.replaced = identity
        goal = ClassGoal(torch.arange(classes), samples)
        return view, method(view, Knowledge(latent_prior=self), goal, seed=0).reconstruction.values


@pytest.fixture(scope="session")
def readable():
    """A prior whose images give their latents away."""
    return Readable()
