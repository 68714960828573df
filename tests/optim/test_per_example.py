"""DP-SGD on a user's own network: in-place additions train exactly, and what cannot is one sentence with its module."""

import copy

import pytest
import torch
from torch import nn

from mibench.data import Examples, InputSpec
from mibench.defenses.dp_sgd import DpSgd
from mibench.errors import UserError
from mibench.nn.foreign import register
from mibench.optim.differential_privacy import clipped_sum, without_batch_norm
from mibench.optim.per_example import hooked, needs_copies, stand_apart, together
from mibench.targets.checkpoint import Checkpoint
from mibench.training import Recipe, Training

SPEC = InputSpec("image", (1, 8, 8), 3)
CPU = torch.device("cpu")


class Block(nn.Module):
    """A residual block as torchvision writes it, with one in-place operation of each kind."""

    def __init__(self, way):
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True)
        self.way = way

    def forward(self, x):
        out = self.norm(self.conv(x))
        if self.way == "+=":
            out += x
        elif self.way == "add_":
            out.add_(x)
        elif self.way == "relu_":
            nn.functional.relu(out, inplace=True)
        else:
            out = out + x
        return self.relu(out)


def network(way="+=", tail=None, head=None):
    parts = [nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), Block(way)]
    return nn.Sequential(*parts, *([tail] if tail else []), nn.Flatten(), head or nn.Linear(256, 3))


def wrapped(build):
    torch.manual_seed(0)
    return without_batch_norm(Checkpoint(spec=SPEC, factory=register("per_example", build)))


@pytest.fixture
def data():
    draws = torch.Generator().manual_seed(0)
    return Examples(torch.rand(12, 1, 8, 8, generator=draws), torch.arange(12) % 3)


@pytest.mark.parametrize("way", ["+=", "add_", "relu_"])
def test_a_network_that_adds_in_place_has_the_gradients_of_single_examples(way, data):
    model = wrapped(lambda: network(way))
    assert needs_copies(model, data)
    outer = hooked(copy.deepcopy(model).train())
    stand_apart(outer)
    with together(outer):
        nn.functional.cross_entropy(outer(data.x), data.y).backward()
    expected = clipped_sum(model.train(), data, 1e9)
    for name, value in outer.named_parameters():
        assert torch.allclose(value.grad_sample.sum(0), expected[name.removeprefix("_module.")], atol=1e-4), name
    assert not any("_compiled_call_impl" in vars(module) for module in outer.modules())


def test_a_layer_of_several_names_counts_once(data):
    """The last layer of a user's network has two: without noise and clipping the step is that of the mean gradient."""
    model = wrapped(lambda: network("plain"))
    assert model.head is model.foreign.get_submodule("5")
    start = copy.deepcopy(model)
    recipe = Recipe(epochs=1, batch_size=12, min_steps=1, lr=1.0, optimizer="sgd", momentum=0.0, weight_decay=0.0,
                    schedule="constant")  # fmt: skip
    defense = DpSgd(accountant="rdp", noise_multiplier=0.0, max_grad_norm=1e9)
    trained = defense.fit(Training(model, data, recipe, 0, CPU))
    mean = clipped_sum(start.train(), data, 1e9)
    for name, value in start.named_parameters():
        assert torch.allclose(value - mean[name] / 12, trained.get_parameter(name), atol=1e-4), name


def test_others_are_left_as_they_are(data):
    before = torch.get_rng_state()
    model = wrapped(lambda: network("plain"))
    assert not needs_copies(model, data)
    assert not any("grad_sample" in vars(p) or p.grad is not None for p in model.parameters())
    wrapped(lambda: network("plain"))
    torch.set_rng_state(before)
    needs_copies(model, data)
    assert torch.equal(torch.get_rng_state(), before)


def test_such_a_network_trains(data):
    model = wrapped(network)
    start = copy.deepcopy(model)
    defense = DpSgd(accountant="rdp")
    trained = defense.fit(Training(model, data, Recipe(epochs=1, batch_size=4, min_steps=5), 0, CPU))
    assert defense.facts()["epsilon"] > 0 and trained(data.x).shape == (12, 3)
    assert any(not torch.equal(a, b) for a, b in zip(start.parameters(), trained.parameters(), strict=True))
    copy.deepcopy(trained)


@pytest.mark.slow
def test_torchvisions_residual_network_trains():
    from torchvision.models import resnet18

    spec = InputSpec("image", (3, 32, 32), 3)
    model = without_batch_norm(Checkpoint(spec=spec, factory=register("resnet", lambda: resnet18(num_classes=3))))
    few = Examples(torch.rand(4, 3, 32, 32), torch.arange(4) % 3)
    assert needs_copies(model, few)
    DpSgd(accountant="rdp").fit(Training(model, few, Recipe(epochs=1, batch_size=2, min_steps=1), 0, CPU))


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.aux = network("plain"), nn.Linear(2, 2)

    def forward(self, x):
        return self.body(x)


class Tied(nn.Module):
    """Uses the weights of a layer that it never calls."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(64, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(nn.functional.linear(x.flatten(1), self.first.weight))


class Centred(nn.Module):
    """Subtracts the mean of the batch."""

    def forward(self, x):
        return x - x.mean(0)


class Counting(nn.Module):
    """Weights and a buffer, which Opacus does not take."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        return self.scale * x


@pytest.mark.parametrize(("build", "said"), [
    (Unused, "module 'aux' of the model takes no part in its answers"),
    (Tied, "weights of the module 'first' are used outside"),
    (lambda: network("plain", Centred()), r"module '4' of the model mixes the examples of a batch.*Centred"),
    (lambda: network("plain", Counting()), r"module '4' of the model has no gradient of every example"),
])  # fmt: skip
def test_what_cannot_be_is_one_sentence_with_the_module(build, said, data):
    model = wrapped(build)
    with pytest.raises(UserError, match=said) as caught:
        DpSgd(accountant="rdp").fit(Training(model, data, Recipe(epochs=1, batch_size=4, min_steps=1), 0, CPU))
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_norms_without_weights_and_used_twice_are_replaced_and_modules_need_no_pickle(data):
    def build():
        shared = nn.BatchNorm2d(4, affine=False)
        made = nn.Sequential(nn.Conv2d(1, 4, 3), shared, nn.Conv2d(4, 4, 3), shared, nn.Flatten(), nn.Linear(64, 3))
        made.note = lambda: None  # cannot be pickled
        return made

    model = wrapped(build)
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 1 and not norms[0].affine
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    needs_copies(model, data)


def test_a_module_that_takes_no_part_has_no_gradient_to_clip(data):
    model = wrapped(Unused)
    total = clipped_sum(model, data, 1.0)
    aux = [value for name, value in total.items() if "aux" in name]
    assert len(aux) == 2 and not any(bool(value.any()) for value in aux)
