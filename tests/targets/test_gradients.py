"""Gradients of every architecture of images: they can be matched, exist per example, and DP-SGD trains with them."""

import pytest
import torch
from networks import once

from mibench.data import Examples, InputSpec
from mibench.defenses.base import DefenderData, DefenseContext
from mibench.defenses.dp_sgd import DpSgd
from mibench.planning.catalogue import entries
from mibench.training import Recipe, Training

IMAGES = [one for one in entries("target") if "image" in one.card.modalities and one.name != "checkpoint"]


@pytest.mark.parametrize("one", once(IMAGES))
def test_a_gradient_can_be_matched(one, make, derivatives):
    """Its distance to a client's has a derivative in the input, which gradient inversion descends."""
    spec = InputSpec("image", (1, 16, 16), 4)
    model, x, y = make(one, spec), torch.rand(2, *spec.shape, requires_grad=True), torch.tensor([1, 3])
    norm = sum(part.square().sum() for part in derivatives(model, x, y, create_graph=True))
    (second,) = torch.autograd.grad(norm, x)
    assert bool(second.isfinite().all()) and bool((second.flatten(1).abs().sum(1) > 0).all())


#: Per-example gradients of these take minutes on a CPU; torchvision's ResNets add in place, which they forbid.
LARGE = ("vgg16", "vgg16_64", "facenet64", "ir152", "torchvision_model")
SMALL = [one for one in IMAGES if one.name not in LARGE]


@pytest.mark.parametrize("one", SMALL, ids=lambda one: one.name)
def test_per_example_gradients_are_those_of_a_loop(one, make, derivatives):
    spec = InputSpec("image", (1, 16, 16), 4)
    model, x, y = make(one, spec), torch.rand(3, *spec.shape), torch.tensor([0, 1, 3])

    def loss(parameters, image, label):
        logits = torch.func.functional_call(model, parameters, (image[None],))
        return torch.nn.functional.cross_entropy(logits, label[None])

    parameters = {name: value.detach() for name, value in model.named_parameters()}
    at_once = torch.func.vmap(torch.func.grad(loss), (None, 0, 0))(parameters, x, y)
    for index in range(len(x)):
        own = derivatives(model, x[index : index + 1], y[index : index + 1])
        for (name, part), expected in zip(at_once.items(), own, strict=True):
            assert torch.allclose(part[index], expected, rtol=1e-3, atol=1e-5), name


@pytest.mark.parametrize("one", SMALL, ids=lambda one: one.name)
def test_dp_sgd_can_train_every_image_target(one, make, digits8):
    data = Examples(digits8.private.train.x[:4], digits8.private.train.y[:4])
    context = DefenseContext(digits8.spec, DefenderData(data, data, None), 0, torch.device("cpu"))
    defense = DpSgd()
    model = defense.architecture(make(one, digits8.spec), context)
    trained = defense.fit(Training(model, data, Recipe(epochs=1, batch_size=2), 0, torch.device("cpu")))
    assert trained(data.x).isfinite().all() and defense.facts()["epsilon"] > 0
