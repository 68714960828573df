import pytest
import torch
from exact import Spy, steps_of
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from mibench.attacks import patchmi
from mibench.attacks.patchmi import PatchDiscriminator, PatchMi
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.tasks.class_ import ClassGoal

SMALL = {"patch": 3, "stride": 1, "padding": 1, "batch_size": 16, "generator_width": 8, "discriminator_width": 16}


@pytest.fixture
def attack(trained_cnn, digits8, white_box):
    """Attacks digits 0-4 with 5-9 as public data; returns images side by side and the victim's answers to them."""

    def run(targets=(0, 1, 2, 3), samples=8, **options):
        view = white_box(trained_cnn, digits8)
        goal = ClassGoal(torch.tensor(targets), samples)
        method = PatchMi(**{**SMALL, "latent_dim": 16, **options})
        images = method(view, Knowledge(public_data=digits8.public), goal, seed=0).reconstruction.values
        return images, trained_cnn.predict_proba(images).argmax(1) == goal.labels

    return run


def least_distance(images):
    """Returns the least distance of two images of one class."""
    return min(float(torch.pdist(own.flatten(1)).min()) for own in images.split(8))


def test_both_networks_step_along_the_stated_losses(attack, monkeypatch):
    """Smoothed public images against generated ones, then generated ones as public with three times the identity."""
    forward = Spy(PatchDiscriminator.forward)
    monkeypatch.setattr(PatchDiscriminator, "forward", lambda self, x: forward(self, x))
    monkeypatch.setattr(PatchMi, "identity_of", lambda *given: torch.tensor(2.0))

    def bce(logits, target):
        return float(binary_cross_entropy_with_logits(logits, torch.full_like(logits, target)).detach())

    options = {"iterations": 1, "targets": (0,), "identity_weight": 3.0}
    (of_judge, judge), (of_maker, maker) = steps_of(patchmi, lambda: attack(**options), 2)
    real, fake, again = forward.returned
    assert of_judge == pytest.approx(bce(real, 0.4) + bce(fake, 0.0), rel=1e-5)
    assert of_maker == pytest.approx(bce(again, 1.0) + 3.0 * 2.0, rel=1e-5)
    assert isinstance(judge, PatchDiscriminator) and not isinstance(maker, PatchDiscriminator)


def test_weights_start_from_a_normal_draw_of_deviation_0_02(attack):
    networks = [network for _, network in steps_of(patchmi, lambda: attack(iterations=1, targets=(0,)), 2)]
    for network in networks:
        layers = [one for one in network.modules() if isinstance(one, nn.Conv2d | nn.ConvTranspose2d)]
        weights = torch.cat([layer.weight.flatten() for layer in layers]).detach()
        assert float(weights.std()) == pytest.approx(0.02, rel=0.1) and abs(float(weights.mean())) < 0.003
        assert not any(bool(layer.bias.any()) for layer in layers)


def test_the_target_is_asked_of_the_images_and_of_random_views(monkeypatch, trained_cnn, digits8, white_box):
    seen, images = [], digits8.public.x[:4]
    monkeypatch.setattr(PatchMi, "identify", lambda self, view, x, labels: seen.append(x) or x.mean((1, 2, 3)))
    view, draws = white_box(trained_cnn, digits8), torch.Generator().manual_seed(0)
    PatchMi(**{**SMALL, "views": 2}).identity_of(view, images, 0, draws)
    plain, first, second = seen[0].split(4)
    assert torch.equal(plain, images) and not torch.equal(first, images) and not torch.equal(first, second)


def test_samples_are_of_their_class_and_differ(attack):
    images, right = attack(iterations=60)
    assert float(right.float().mean()) > 0.9
    assert least_distance(images) > 0.03
    assert not least_distance(images[::8].repeat_interleave(8, 0)) > 0.03  # one image of each class, repeated


def test_a_stub_that_ignores_the_target_is_at_chance(attack):
    assert not float(attack(iterations=20, identity_weight=0.0)[1].float().mean()) > 0.9


def rates(monkeypatch, attack, **options):
    """Returns the learning rate of every step of both networks, the discriminator's first, in shares of the largest."""
    seen, step = [], patchmi.step_along

    def look(adam, loss, network):
        seen.append(adam.param_groups[0]["lr"] / 1e-3)
        step(adam, loss, network)

    monkeypatch.setattr(patchmi, "step_along", look)
    attack(targets=(0,), samples=1, lr=1e-3, **options)
    return seen


def test_the_learning_rate_is_constant_or_rises_and_falls_to_nothing_for_both_networks(monkeypatch, attack):
    assert rates(monkeypatch, attack, iterations=3, warmup=2) == pytest.approx([1.0] * 6)
    linear = rates(monkeypatch, attack, iterations=6, warmup=2, schedule="linear")
    assert linear == pytest.approx([rate for rate in (0, 0.5, 1, 0.75, 0.5, 0.25) for _ in range(2)])


def test_a_class_does_not_depend_on_which_others_are_attacked(attack):
    alone, _ = attack(targets=(2,), iterations=3)
    beside, _ = attack(targets=(0, 2), iterations=3)
    torch.testing.assert_close(alone, beside[8:])
    assert not torch.allclose(alone, beside[:8], atol=1e-3)


def changes_by_moving_patches(patch):
    """Returns by how much the logits change where the 4x4 tiles of 16x16 images trade places."""
    torch.manual_seed(0)
    judge = PatchDiscriminator((1, 16, 16), patch, patch, 0, 32)
    x = torch.rand(5, 1, 16, 16)
    tiles = torch.nn.functional.unfold(x, 4, stride=4)
    moved = torch.nn.functional.fold(tiles[:, :, torch.randperm(16)], (16, 16), 4, stride=4)
    return float((judge(x) - judge(moved)).abs().max().detach())


def test_the_discriminator_does_not_know_where_patches_belong():
    assert changes_by_moving_patches(4) < 1e-5
    assert not changes_by_moving_patches(16) < 1e-5  # one patch, the whole image: the paper's ablation


def test_a_patch_larger_than_the_image_is_one_sentence(attack):
    with pytest.raises(UserError, match=r"attack\.patch=12 is larger"):
        attack(patch=12, iterations=1)
