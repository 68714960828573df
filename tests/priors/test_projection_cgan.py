import copy
from types import SimpleNamespace

import pytest
import torch
from exact import Spy, steps_of
from torch import nn

from mibench.access import Ledger, WhiteBoxView
from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.priors import projection_cgan
from mibench.priors.base import PriorData
from mibench.priors.projection_cgan import ProjectionCgan, ProjectionCganNetworks
from mibench.seeding import seeded
from mibench.targets.cnn import Cnn
from mibench.training import Recipe, Training

SPEC = InputSpec("image", (1, 16, 16), classes=4)
CPU = torch.device("cpu")


def quadrants(n=400):
    """The private images: one bright quadrant, which is the class."""
    labels = torch.arange(n) % 4
    x = torch.zeros(n, 1, 2, 8, 2, 8)
    x[torch.arange(n), 0, labels // 2, :, labels % 2] = 1
    noise = 0.1 * torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    return Examples(0.1 + 0.8 * x.reshape(n, 1, 16, 16) + noise, labels)


def blobs(n=400):
    """The public images, of another style: one soft blob anywhere."""
    draws = torch.Generator().manual_seed(1)
    row, column, size = (torch.rand(n, 1, 1, generator=draws) for _ in range(3))
    line = torch.arange(16.0)
    squares = (line[:, None] - 16 * row) ** 2 + (line - 16 * column) ** 2
    x = 0.8 * torch.exp(-squares / (2 * (2 + 2 * size) ** 2))[:, None]
    return Examples(x + 0.1 * torch.rand(x.shape, generator=draws), torch.zeros(n, dtype=torch.long))


@pytest.fixture(scope="module")
def view():
    torch.manual_seed(0)
    recipe = Recipe(epochs=5, batch_size=64, lr=5e-3)
    victim = Training(Cnn(spec=SPEC, width=8), quadrants(), recipe, 0, CPU).run()
    return WhiteBoxView.of(victim, SPEC, Ledger(), CPU)


def train(view, **options):
    prior = ProjectionCgan(**{"width": 4, "latent_dim": 16, "batch_size": 16, "n_critic": 1, **options})
    with seeded(0):
        network = prior.network(SPEC)
        prior.train(network, PriorData(blobs(), SPEC, view), 0, CPU)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def trained(view):
    """A larger step than the paper's: 250 generator steps instead of 30,000."""
    return train(view, iterations=250, lr=3e-3)


LABELS = torch.arange(4).repeat_interleave(64)


def agreement(network, view, labels=LABELS):
    """Returns by class how often the victim sees class c where c was wanted; the generator is told ``labels``."""
    z = network.sample_latent(len(LABELS), torch.Generator().manual_seed(3))
    seen = view.logits(network.generate_class(z, labels)).argmax(1)
    return (seen == LABELS).float().reshape(4, 64).mean(1)


def test_both_networks_step_along_the_stated_losses(view, monkeypatch):
    """The hinge game at scores of -3, 2 and -0.5, and the victim's margin of 7."""
    critic = Spy(lambda x, labels: torch.tensor([-3.0, 2.0, -0.5, 0.5])[labels] + 0 * x.mean((1, 2, 3)))
    views = Spy(lambda x, draws: 0.5 * x)
    monkeypatch.setattr(ProjectionCganNetworks, "critic_class", lambda self, x, labels: critic(x, labels))
    monkeypatch.setattr(projection_cgan, "gentle", lambda mirrored: views)
    monkeypatch.setattr(projection_cgan, "max_margin", lambda logits, labels: torch.full((len(labels),), 7.0))
    (of_maker, makers), (of_judge, judges) = steps_of(projection_cgan, lambda: train(view, iterations=1), 2)
    generated, real, fake = critic.returned
    assert of_maker == pytest.approx(0.2 * 7.0 - float(generated.mean()), abs=1e-5)
    assert of_judge == pytest.approx(float((1 - real).relu().mean() + (1 + fake).relu().mean()), abs=1e-5)
    assert torch.equal(views.given[0], critic.given[0]), "the victim sees a view of the generated images"
    assert {*makers.parameters()}.isdisjoint(judges.parameters())


def test_every_class_has_the_images_that_the_victim_scores_highest():
    logits = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    x = torch.arange(40.0).reshape(40, 1, 1, 1)
    stub = SimpleNamespace(logits=lambda images: logits[images.flatten().long()])
    labelled = ProjectionCgan(top=3).labelled(x, stub)
    for label in range(4):
        best = logits.softmax(1)[:, label].topk(3).indices
        assert sorted(labelled.x[labelled.y == label].flatten().tolist()) == sorted(best.tolist())


def test_random_latents_already_show_their_class(trained, view):
    assert float(agreement(trained, view).min()) > 0.7


def test_images_of_shuffled_classes_do_not(trained, view):
    shuffled = LABELS[torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(4))]
    assert float(agreement(trained, view, shuffled).mean()) < 0.4


def test_a_stub_that_ignores_the_class_is_at_chance_both_times(trained, view):
    assert float(agreement(trained, view, torch.zeros_like(LABELS)).mean()) < 0.4
    assert float(agreement(trained, view, torch.zeros_like(LABELS)).min()) < 0.7


def score_changes(network, images, one, other):
    return float((network.critic_class(images, one) - network.critic_class(images, other)).abs().mean())


def test_the_class_changes_image_and_score(trained):
    z = trained.sample_latent(32, torch.Generator().manual_seed(5))
    one, other = (torch.full((32,), label) for label in (0, 1))
    images = trained.generate_class(z, one)
    assert float((images - trained.generate_class(z, other)).abs().mean()) > 0.05
    assert score_changes(trained, images, one, other) > 0.01
    unprojected = copy.deepcopy(trained)
    unprojected.of_class = nn.Embedding.from_pretrained(torch.zeros(4, 16))
    assert not score_changes(unprojected, images, one, other) > 0.01
    untrained = ProjectionCgan(width=4, latent_dim=16).network(SPEC).eval().requires_grad_(False)
    assert float((untrained.generate_class(z, one) - untrained.generate_class(z, other)).abs().mean()) < 0.05


def test_the_victims_highest_scores_label_the_public_images(view):
    public, top = blobs().x, 30
    labelled = ProjectionCgan(top=top).labelled(public, view)
    scores = view.logits(public).softmax(1)

    def is_top(examples):
        rows = [{image.numpy().tobytes(): i for i, image in enumerate(public)}[x.numpy().tobytes()] for x in examples.x]
        for label in range(4):
            own = torch.tensor(rows)[examples.y == label]
            others = torch.ones(len(public), dtype=torch.bool).index_fill(0, own, False)
            if len(own.unique()) != top or scores[own, label].min() < scores[others, label].max():
                return False
        return True

    assert is_top(labelled)
    mixed = labelled.y[torch.randperm(len(labelled), generator=torch.Generator().manual_seed(0))]
    assert not is_top(Examples(labelled.x, mixed))


def test_too_few_public_images_are_one_sentence(view):
    with pytest.raises(UserError, match=r"labels 500 public images .* only 400; set prior.top"):
        ProjectionCgan(top=500).labelled(blobs().x, view)


def largest_spectral_norm(network):
    layers = [one for one in network.judges.modules() if isinstance(one, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(layers) == 3 * 3 + 2
    return max(float(torch.linalg.matrix_norm(layer.weight.flatten(1), 2)) for layer in layers)


def test_the_discriminators_layers_have_a_spectral_norm_of_one(view):
    network = train(view, iterations=20)
    assert largest_spectral_norm(network) < 1.05
    bare = copy.deepcopy(network)
    for layer in list(bare.judges.modules()):
        if nn.utils.parametrize.is_parametrized(layer):
            nn.utils.parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    assert largest_spectral_norm(bare) > 1.05


def test_the_range_is_converted_once():
    """What the generator paints in [-1, 1] is what the discriminator sees, with an image in [0, 1] in between."""
    network = ProjectionCgan(width=4, latent_dim=16).network(SPEC)
    painted, seen = [], []
    network.paint.register_forward_hook(lambda _module, _inputs, output: painted.append(output))
    network.judge.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0]))
    labels = torch.arange(4)
    with torch.no_grad():
        images = network.generate_class(torch.randn(4, 16), labels)
        network.critic_class(images, labels)
        network.critic_class(2 * images - 1, labels)  # converted twice
    assert float(painted[0].min()) < 0
    torch.testing.assert_close(seen[0], painted[0])
    assert not torch.allclose(seen[1], painted[0])


@pytest.mark.parametrize("size", [8, 16, 24, 32])
def test_images_have_the_shape_asked_for_and_lie_in_range(size):
    network = ProjectionCgan(width=4, latent_dim=8).network(InputSpec("image", (3, size, size), 5))
    images = network.generate(torch.randn(6, 8)).detach()
    assert images.shape == (6, 3, size, size)
    assert float(images.min()) >= 0 and float(images.max()) <= 1
    assert network.critic(images).shape == (6,)


def test_labelling_and_training_are_charged(view):
    own = WhiteBoxView(SPEC, Ledger(), CPU, view.model)
    before = view.ledger.queries
    train(own, iterations=2)
    assert view.ledger.queries - before == 400 + 2 * 16
