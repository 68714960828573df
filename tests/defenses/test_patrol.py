import copy
from itertools import pairwise

import pytest
import torch
from exact import inside
from torch import nn

from mibench.defenses.base import Defense
from mibench.defenses.patrol import Patrol, SoftMask, reaching, removed
from mibench.errors import UserError
from mibench.nn.simulated_attacker import SimulatedAttacker
from mibench.seeding import seeded
from mibench.targets.cnn import Cnn
from mibench.targets.mlp import Mlp
from mibench.targets.residual import Residual
from mibench.targets.torchvision_model import TorchvisionModel
from mibench.targets.vit_tiny import VitTiny
from mibench.training import Batch, Recipe, Training, cross_entropy

OFF = {"beta": 0.0, "alpha": 0.0, "sparsity": 0.0}
#: A stub: the model learns together with the decoder.
HELPING = {**OFF, "beta": -5.0}
SMALL = {"decoder": "custom", "decoder_channels": 32, "decoder_lr": 3e-3}


def masks_of(model):
    return [part for part in model.modules() if isinstance(part, SoftMask)]


@pytest.fixture
def defended(started):
    """An untrained network under a defense: ``defended(defense, target, cut, **size)``."""

    def make(defense, target=Mlp, cut=1, **size):
        return started(defense, target, cut=cut, **(size or {"hidden": (24, 16)})).model

    return make


@pytest.fixture(scope="module")
def trained(digits8, train_under, accuracy_of):
    """Trains a network under a defense: ``trained(**options) -> (model, sum of constants, test accuracy, facts)``."""
    made = {}

    def train(cut=1, **options):
        key = cut, *options.items()
        if key not in made:
            beta = options.get("beta", Patrol.beta)
            defense = Patrol(**{**options, "beta": abs(beta)}, **SMALL)
            defense.beta = beta  # the stub's is of the wrong sign, which no option may be
            recipe = Recipe(epochs=20, batch_size=32, lr=1e-2)
            model = train_under(defense, Mlp, recipe, cut, hidden=(24, 16))
            with seeded(0), torch.no_grad():
                constants = Patrol(alpha=1.0).sent(model, digits8.private.test.x)[1]
            made[key] = model, float(constants.sum()), accuracy_of(model), defense.facts()
        return made[key]

    return train


def test_the_loss_is_that_of_the_docstring_and_has_masks_in_the_first_half(digits8, started, monkeypatch):
    """The decoder, which takes a step before it is asked, errs by 0.3; the first of 24 + 16 masks is small."""
    asked = []
    monkeypatch.setattr(SimulatedAttacker, "learn", lambda *_: asked.append("learn"))
    monkeypatch.setattr(SimulatedAttacker, "error", lambda *_: asked.append("error") or torch.tensor(0.3))
    defense = Patrol(beta=2.0, alpha=0.5, sparsity=0.25, **SMALL)
    plan = started(defense, Mlp, Recipe(epochs=2, batch_size=32, lr=0.01), 1, hidden=(24, 16))
    masks, (x, y) = masks_of(plan.model), (digits8.private.train.x[:16], digits8.private.train.y[:16])
    with torch.no_grad():
        masks[0].weight[0] = 0.1

    def look(training, loss, rates):
        found = []
        for progress in (0.49, 0.5):
            with seeded(3):
                value = loss(Batch(plan.model, x, y, progress)).item()
            with seeded(3):
                constants = defense.sent(plan.model, x)[1].sum().item()
            plain = cross_entropy(Batch(plan.model, x, y)).item()
            found.append((value - plain - 0.5 * constants, [int(mask.kept.sum()) for mask in masks]))
        return found, rates, training.epochs * training.steps_per_epoch

    (first, second), rates, steps = inside(Training, "run", lambda: defense.fit(plan), look)
    assert first == (pytest.approx(0.25 * 39.1 - 2.0 * 0.3, abs=1e-4), [24, 16])
    assert second == (pytest.approx(-2.0 * 0.3, abs=1e-4), [23, 16])
    assert asked == 2 * ["learn", "error"]
    assert rates == dict.fromkeys(masks, pytest.approx(4 / (steps * 0.01))), "a mask can travel four on its way"


def test_the_penalty_lowers_the_lipschitz_constants(trained):
    """Measured: a sum of 2.45 with the masks and the decoder alone (the stub), 1.33 with a weight of 0.1."""
    _, plain, before, _ = trained(alpha=0.0)
    _, value, after, _ = trained(alpha=0.1)
    assert value < 0.7 * plain
    assert after > before - 0.03


def test_a_fresh_decoder_makes_less_of_the_features(trained, decoder_error):
    """Measured at stage 0: squared errors of 0.033 undefended, 0.056 defended (0.051 with other weights of the decoder
    that it trained against), 0.023 of the stub; accuracies of 0.996 and 0.987.
    """
    runs = [trained(cut=None, **options) for options in (OFF, HELPING, {"beta": 3.0})]
    plain, stub, error = (decoder_error(run[0]) for run in runs)
    assert error > 1.3 * plain
    assert stub < plain
    assert runs[2][2] > runs[0][2] - 0.03


def test_small_units_are_removed_and_no_weight_that_depends_on_them_stays(trained, digits8):
    """By hand: a unit of stage 0 has 64 weights, a bias and a column of 16; one of stage 1 has 24, a bias and 5."""
    model, _, _, facts = trained(alpha=0.1)
    first, second = (mask.kept for mask in masks_of(model))
    gone = int((1 - first).sum()), int((1 - second).sum())
    assert sum(gone) >= 4 and first.sum() and second.sum()
    assert facts["pruned_units"] == pytest.approx(sum(gone) / 40)
    weights = 24 * 65 + 16 * 25 + 5 * 17
    both = gone[0] * gone[1]  # weights between two removed units are counted once
    pruned = gone[0] * (64 + 1 + 16) + gone[1] * (24 + 1 + 5) - both
    assert facts["pruned_share"] == pytest.approx(pruned / weights)
    zeros = sum(int((p == 0).sum()) for name, p in model.named_parameters() if "1.weight" not in name)
    assert zeros == pruned
    disturbed = copy.deepcopy(model)
    with torch.no_grad():
        for mask in masks_of(disturbed):
            mask.weight[mask.kept == 0] = 7.0
        disturbed.stages[0][0][0].bias[first == 0] = 3.0
        disturbed.stages[1][0][0].weight[:, first == 0] = 3.0
    x = digits8.private.test.x
    assert torch.equal(disturbed.predict_proba(x), model.predict_proba(x))


def test_a_unit_is_small_beside_the_largest_of_its_block_and_removed_for_good():
    mask, h = SoftMask((4, 2, 2)), torch.ones(3, 4, 2, 2)
    with torch.no_grad():
        mask.weight.copy_(torch.tensor([0.5, -0.15, 0.09, -0.01]))
    mask.remove(0.2)
    assert mask.kept.tolist() == [1, 1, 0, 0]
    with torch.no_grad():
        mask.weight.fill_(1.0)
    mask.remove(2.0)
    assert mask(h)[0, :, 0, 0].tolist() == [1, 1, 0, 0]
    whole = SoftMask((7,))
    whole.remove(0.0)
    assert whole.kept.tolist() == [1] * 7


@pytest.mark.parametrize(
    ("target", "size"), [(Cnn, {"width": 4}), (Residual, {"width": 8}), (VitTiny, {}), (Mlp, {"hidden": (12, 8)})]
)
def test_zeroed_weights_change_no_answer_whatever_the_architecture(digits8, defended, target, size):
    """Behind batch norm, residual paths, group norm and attention; a stub that takes one live weight shows."""
    model = defended(Patrol(), target, 1, **(size or {"patch": 4})).eval()
    with torch.no_grad():
        for mask in masks_of(model):
            mask.weight.uniform_(0.5, 1.5)
            mask.kept[::3] = 0.0
    x, shape = digits8.private.test.x[:64], tuple(digits8.spec.shape)
    before = model.predict_proba(x)
    facts = removed(model, shape)
    assert 0.005 < facts["pruned_share"] < 0.6
    torch.testing.assert_close(model.predict_proba(x), before, rtol=1e-5, atol=1e-6)
    name, alive = max(reaching(model, shape).items(), key=lambda one: int(one[1].sum()))
    with torch.no_grad():
        model.get_parameter(name)[alive] = 0.0
    assert float((model.predict_proba(x) - before).abs().max()) > 1e-4


def test_weights_of_a_convolution_are_counted_by_hand(defended):
    """A channel of block 0: 9 weights, a bias, two of batch norm, and 9 in each of 8 channels of the next block."""
    model = defended(Patrol(), Cnn, 0, width=4)
    masks_of(model)[0].kept[1] = 0.0
    weights = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("stages.0.1"))
    assert removed(model, (1, 8, 8))["pruned_share"] == pytest.approx((9 + 1 + 2 + 9 * 8) / weights)


def test_the_constants_are_the_definitions(digits8, defended):
    defense, model, x = Patrol(deviation=0.2), defended(Patrol()), digits8.private.test.x[:32]
    with seeded(5), torch.no_grad():
        sent, constants = defense.sent(model, x)
    with seeded(5), torch.no_grad():
        noise = 0.2 * torch.randn_like(x)
        plain, noisy = model.blocks(x), model.blocks(x + noise)
    steps = [(a - b).flatten(1).norm(dim=1) for a, b in [(x + noise, x), *zip(noisy, plain, strict=True)]][:3]
    expected = [(after / before).mean() for before, after in pairwise(steps)]
    torch.testing.assert_close(constants, torch.stack(expected))
    torch.testing.assert_close(sent, plain[1])
    with seeded(5), torch.no_grad():
        largest = Patrol(deviation=0.2, bound="max").sent(model, x)[1]
    torch.testing.assert_close(largest, torch.stack([(b / a).max() for a, b in pairwise(steps)]))


def test_it_is_plain_training_to_the_bit_without_its_three_terms(digits8, train_under):
    def answers(defense):
        model = train_under(defense, Cnn, Recipe(epochs=2, batch_size=64), width=4)
        return model.predict_proba(digits8.private.test.x)

    plain = answers(Defense())
    assert torch.equal(answers(Patrol(**OFF)), plain)
    assert not torch.equal(answers(Patrol(**OFF | {"sparsity": 0.5})), plain)


def test_it_masks_the_clients_blocks_and_refuses_what_runs_in_one_piece(digits8, defended):
    for cut, count in ((None, 1), (0, 1), (1, 2)):
        model = defended(Patrol(), cut=cut)
        assert [len(mask.weight) for mask in masks_of(model)] == [24, 16][:count]
        assert isinstance(model.stages[0], nn.Sequential) and model.divides(digits8.private.test.x[:2])
    with pytest.raises(UserError, match="defense=patrol acts behind a stage"):
        defended(Patrol(), TorchvisionModel, None, arch="resnet18", size=32)
