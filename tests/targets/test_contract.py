"""Every architecture keeps the contract of :class:`mibench.model.Classifier`."""

import pytest
import torch
from networks import once

from mibench.access import Ledger, WhiteBoxView
from mibench.data import Column, InputSpec
from mibench.planning.catalogue import entries
from mibench.targets.base import centred
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp, RecordEncoder
from mibench.targets.resnet18 import ResNet18

TARGETS = [one for one in entries("target") if one.name != "checkpoint"]
IMAGES = [one for one in TARGETS if "image" in one.card.modalities]

#: Those that take spectrograms, and those that take images or spectrograms.
SPECTROGRAMS = [one for one in TARGETS if "audio" in one.card.modalities]
MAPS = [*IMAGES, *(one for one in SPECTROGRAMS if one not in IMAGES)]


def spec_for(one, shape, classes):
    """Returns facts of what the target takes: images, or where it takes none decibels."""
    if one in IMAGES:
        return InputSpec("image", shape, classes)
    return InputSpec("audio", shape, classes, low=-80.0, high=0.0)


def inputs(spec, n):
    return spec.low + (spec.high - spec.low) * torch.rand(n, *spec.shape)


RANGES = (("audio", -80.0, 0.0), ("image", 0.0, 1.0))


@pytest.fixture(scope="class")
def model(one, make):
    """The target for maps of one channel and 16x16 entries, of four classes; made once for several tests."""
    return make(one, spec_for(one, (1, 16, 16), 4))


def keeps_the_contract(model, spec):
    x = inputs(spec, 3)
    with torch.no_grad():
        logits, blocks = model.forward_with_blocks(x)
        features, probabilities = model.features(x), model.predict_proba(x)
        assert logits.shape == (3, spec.classes) and len(blocks) >= 2
        assert torch.allclose(logits, model(x), atol=1e-6)
        assert torch.allclose(model.head(features), logits, atol=1e-6)
        assert features.dim() == 2
        assert torch.allclose(probabilities.sum(1), torch.ones(3), atol=1e-5)
        assert torch.allclose(model.predict_proba(x, batch_size=1), probabilities, atol=1e-5)


@pytest.mark.parametrize("one", once(MAPS), scope="class")
class TestMaps:
    """What holds for every target of images or spectrograms."""

    def test_an_image_target_keeps_the_contract(self, model, one):
        keeps_the_contract(model, spec_for(one, (1, 16, 16), 4))

    def test_it_does_so_for_colours_and_other_sizes(self, one, make):
        spec = spec_for(one, (3, 32, 32), 7)
        keeps_the_contract(make(one, spec), spec)

    def test_the_input_counts_and_differentiates(self, model, one):
        spec = spec_for(one, (1, 16, 16), 4)
        ledger = Ledger()
        view = WhiteBoxView.of(model, spec, ledger, torch.device("cpu"))
        x = inputs(spec, 2).requires_grad_(True)
        (gradient,) = torch.autograd.grad(view.logits(x).sum(), x)
        assert gradient.abs().sum() > 0 and ledger.queries == ledger.gradient_evals == 2

    def test_weights_depend_on_the_seed_alone(self, model, one, make):
        spec = spec_for(one, (1, 16, 16), 4)
        again, other = make(one, spec), make(one, spec, seed=1)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
        assert not torch.equal(next(model.parameters()), next(other.parameters()))


@pytest.mark.parametrize("one", SPECTROGRAMS, ids=lambda one: one.name)
def test_a_target_of_spectrograms_takes_decibels_as_it_takes_images(one, make):
    """What it computes depends on where a value lies in its range, and on nothing else of it."""
    decibels, pictures = (InputSpec(kind, (1, 16, 16), 4, low=low, high=high) for kind, low, high in RANGES)
    x = torch.rand(3, 1, 16, 16)
    assert torch.allclose(make(one, decibels)(80 * x - 80), make(one, pictures)(x), atol=1e-4)


def test_images_are_centred_inside_the_model():
    normalise = centred(InputSpec("image", (3, 4, 4), 2))
    x = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1).expand(1, 3, 4, 4)
    assert torch.equal(normalise(x)[0, :, 0, 0], torch.tensor([-1.0, 0.0, 1.0]))


def test_lenet_is_the_papers():
    model = LeNet(spec=InputSpec("image", (3, 32, 32), 100))
    assert model.head.in_features == 768
    shapes = [tuple(p.shape) for p in model.parameters()]
    assert shapes == [(12, 3, 5, 5), (12,), (12, 12, 5, 5), (12,), (12, 12, 5, 5), (12,), (100, 768), (100,)]
    values = torch.cat([p.flatten() for p in model.parameters()])
    assert -0.5 <= values.min() < -0.49 and 0.49 < values.max() <= 0.5


def test_a_small_input_gets_a_small_stem():
    assert ResNet18(spec=InputSpec("image", (3, 32, 32), 2)).stages[0][0].stride == (1, 1)
    assert ResNet18(spec=InputSpec("image", (3, 64, 64), 2)).stages[0][0].stride == (2, 2)


COLUMNS = (Column("colour", ("blue", "red", "white")), Column("age"))


def test_records_are_encoded_inside_the_model():
    encoder = RecordEncoder(COLUMNS)
    encoder.fit(torch.tensor([[0.0, 10.0], [1.0, 20.0], [2.0, 30.0]]))
    assert torch.allclose(encoder(torch.tensor([[2.0, 30.0]])), torch.tensor([[0.0, 0.0, 1.0, 1.0]]))


def test_a_table_target_takes_raw_records():
    spec = InputSpec("tabular", (2,), 2, COLUMNS)
    model = Mlp(spec=spec, hidden=[8]).eval()
    records = torch.tensor([[0.0, 10.0], [2.0, 30.0]])
    model.adapt(records)
    assert model(records).shape == (2, 2) and len(model.blocks(records)) == 1


def test_weights_that_were_stored_before_entries_stay_readable(make):
    """The first module is registered as ``normalise``, whatever class it is of."""
    image, table = (
        InputSpec("image", (1, 8, 8), 3),
        InputSpec("tabular", (2,), 3, (Column("a"), Column("b", ("x", "y")))),
    )
    before = {
        "cnn": (image, {"normalise.mean", "normalise.std", "stages.0.0.weight", "head.weight"}),
        "mlp": (table, {"normalise.mean", "normalise.std", "stages.0.0.weight", "head.weight"}),
    }
    for one in entries("target"):
        if one.name in before:
            spec, names = before[one.name]
            assert names <= set(make(one, spec).state_dict())
    assert {"normalise.0.mean", "normalise.0.std"} <= set(Mlp(spec=image).state_dict())
    old = {"normalise.mean": torch.tensor([1.0, 0.0]), "normalise.std": torch.tensor([2.0, 1.0])}
    mlp = Mlp(spec=table)
    assert not mlp.load_state_dict(old, strict=False).unexpected_keys
    torch.testing.assert_close(mlp.normalise(torch.tensor([[3.0, 1.0]])), torch.tensor([[1.0, 0.0, 1.0]]))
