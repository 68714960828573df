import pytest
import torch
from exact import inside
from torch.nn.functional import cross_entropy

from mibench.access import Ledger, ScoresView, WhiteBoxView
from mibench.attacks.secretgen import SecretGen, pseudo_label, raster, selected
from mibench.data import Examples, InputSpec
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.model import InpaintingPrior
from mibench.tasks.completion import CompletionGoal, hole_mask

SPEC = InputSpec("image", (1, 8, 8), 4)
HOLE = hole_mask("centre", 8, 8)
GREY = CompletionGoal(torch.full((6, 1, 8, 8), 0.5).masked_fill(HOLE, 0.0), HOLE)
CPU = torch.device("cpu")


def attack(view, prior, goal=GREY, public=0.5, **options):
    examples = Examples(torch.full((3, 1, 8, 8), public), torch.zeros(3, dtype=torch.long))
    return SecretGen(**{"candidates": 10, "iterations": 20, **options})(view, Knowledge(examples, prior), goal, seed=0)


def white_box(model):
    return WhiteBoxView.of(model, SPEC, Ledger(), CPU)


def black_box(ask):
    return ScoresView(SPEC, Ledger(), CPU, ask)


# (a) the known pixels


def test_the_refinement_descends_both_critics_and_the_labels_surprise(linear_classifier, linear_inpainting):
    """The formula at given latents; the local critic sees a window that is drawn anew at every look."""
    prior = linear_inpainting(taste=2.0, local_taste=3.0)

    def look(method, z, loss, after, what):
        z = torch.rand(6, 6, generator=torch.Generator().manual_seed(1))
        filled = prior.fill(GREY.images, HOLE, z)
        values = [loss(z) for _ in range(2)]
        for value, (top, left) in zip(values, prior.windows[-2:], strict=True):
            realism = 2.0 * filled.mean((1, 2, 3)) + 3.0 * filled[..., top : top + 4, left : left + 4].mean((1, 2, 3))
            surprise = (value + realism) / 5.0
            every = -linear_classifier(filled).log_softmax(1)
            assert bool(((every - surprise[:, None]).abs().amin(1) < 1e-4).all()), "it is that of one label"
        assert len(set(prior.windows[-2:])) == 2

    white = white_box(linear_classifier)
    inside(SecretGen, "descend", lambda: attack(white, prior, identity_weight=5.0), look)


def test_known_pixels_are_returned_bit_by_bit(linear_classifier, linear_inpainting):
    images = torch.rand(6, 1, 8, 8).masked_fill(HOLE, 0.0)
    result = attack(white_box(linear_classifier), linear_inpainting(), CompletionGoal(images, HOLE))
    assert torch.equal(result.reconstruction.values.masked_fill(HOLE, 0.0), images)
    with pytest.raises(ValueError, match="outside the hole"):
        attack(white_box(linear_classifier), linear_inpainting(paints=True))


# (b) the queries of a black box


def test_a_black_box_is_asked_3400_times_per_image_and_never_again(linear_classifier, linear_inpainting):
    """The defaults, with the service replaced by another one after these questions: the answer is the same."""
    asked = []

    def ask(x, other=False):
        asked.append(len(x))
        probabilities = linear_classifier(x).softmax(1)
        return probabilities.flip(1) if other and sum(asked) > 3400 * len(GREY.images) else probabilities

    first = attack(black_box(ask), linear_inpainting(taste=30.0), candidates=200, iterations=30)
    assert first.ledger["queries"] == {"prepare": 0, "initialise": 6 * 3400, "optimise": 0, "select": 0}
    asked.clear()
    replaced = attack(
        black_box(lambda x: ask(x, other=True)), linear_inpainting(taste=30.0), candidates=200, iterations=30
    )
    assert torch.equal(first.reconstruction.values, replaced.reconstruction.values)
    assert SecretGen().candidates * (1 + SecretGen().grid ** 2) == 3400
    opened = attack(white_box(linear_classifier), linear_inpainting(taste=30.0), candidates=200, iterations=30)
    assert opened.ledger["queries"]["optimise"] == 6 * 30  # the same check rejects the white-box attack


# (c) the pseudo-label


class Cue(InpaintingPrior):
    """Fills the hole with one brightness, uniform in [0, 1] for clipped normal latents but for its ends."""

    name, shape, latent_dim = "cue", (1, 8, 8), 1

    def fill(self, masked, hole, z):
        return torch.where(hole, ((z + 1) / 2)[:, :, None, None], masked)

    def critic(self, x):
        return torch.zeros(len(x)) + 0 * x.mean((1, 2, 3))

    def local_critic(self, x, draws):
        return self.critic(x)


LEVELS = torch.tensor([0.2, 0.4, 0.6, 0.8])


def fooled(x):
    """Takes images for the class of the median brightness of their border, unless the cue speaks for the next class.

    The cue is the darkest of the four cells inside the hole: where any of them is cut out, it is gone.
    """
    border = x[:, 0, ~HOLE[0, 0]].median(1).values
    cells = torch.nn.functional.avg_pool2d(x[..., 2:6, 2:6], 2).flatten(1)
    true = (border[:, None] - LEVELS).abs().argmin(1)
    logits = torch.zeros(len(x), 4)
    rows = torch.arange(len(x))
    logits[rows, true] = 4.0
    logits[rows, (true + 1) % 4] = 1.5 + 6.0 * cells.amin(1)
    return logits.softmax(1)


def labels_found(**options):
    """Returns the share of images whose label is found; the public images are black, and so are cells cut out."""
    true = torch.arange(40) % 4
    images = LEVELS[true][:, None, None, None].expand(-1, 1, 8, 8).masked_fill(HOLE, 0.0)
    result = attack(
        black_box(fooled), Cue(), CompletionGoal(images, HOLE), 0.0, candidates=100, iterations=1, **options
    )
    return float((result.reconstruction.labels == true).float().mean())


def test_cutouts_break_a_spurious_cue():
    assert labels_found() > 0.8
    assert labels_found(grid=0) < 0.6


def test_a_class_that_no_plain_completion_is_taken_for_is_no_label():
    plain = torch.tensor([[[0.6, 0.3, 0.1], [0.5, 0.4, 0.1], [0.4, 0.3, 0.3]]])
    assert pseudo_label(plain, torch.tensor([[0.3, 0.5, 0.2]])).tolist() == [0]
    plain[0, 2] = torch.tensor([0.4, 0.5, 0.1])
    assert pseudo_label(plain, torch.tensor([[0.3, 0.5, 0.2]])).tolist() == [1]


def test_a_cell_that_is_cut_out_shows_the_mean_public_pixel(linear_inpainting):
    shown = []

    def ask(x):
        shown.append(x.clone())
        return torch.full((len(x), 4), 0.25)

    attack(black_box(ask), linear_inpainting(), public=0.7, candidates=1, iterations=1)
    plain, *cut = shown
    assert len(cut) == 16
    for cell, images in zip(raster(4, plain), cut, strict=True):
        assert bool(((images[..., cell] - 0.7).abs() < 1e-6).all())
        assert torch.equal(images[..., ~cell], plain[..., ~cell])


def test_a_raster_parts_the_image():
    cells = raster(4, torch.zeros(1, 1, 8, 10))
    assert len(cells) == 16 and torch.equal(torch.stack(cells).sum(0), torch.ones(8, 10, dtype=torch.long))
    assert int(cells[5].sum()) in (4, 6) and bool(cells[0][0, 0]) and bool(cells[15][7, 9])
    assert raster(0, torch.zeros(1, 1, 8, 8)) == []


# Selection and refinement


def test_the_surest_candidates_of_the_label_come_first():
    plain = torch.tensor([[[0.6, 0.3, 0.1], [0.45, 0.5, 0.05], [0.9, 0.1, 0.0], [0.1, 0.1, 0.8]]])
    latents = torch.arange(4.0)[None, :, None]
    assert selected(latents, plain, torch.tensor([0]), 3).flatten().tolist() == [2, 0, 1]
    assert selected(latents, plain, torch.tensor([2]), 1).flatten().tolist() == [3]


def test_candidates_of_another_class_come_last():
    plain = torch.tensor([[[0.45, 0.5, 0.05], [0.4, 0.3, 0.3], [0.2, 0.7, 0.1]]])
    latents = torch.arange(3.0)[None, :, None]
    assert selected(latents, plain, torch.tensor([0]), 3).flatten().tolist() == [1, 0, 2]


def loss_of_label(model, prior, **options):
    view = white_box(model)
    result = attack(view, prior, **{"batch": 1, **options})
    labels = result.reconstruction.labels
    return float(cross_entropy(view.logits(result.reconstruction.values), labels)), labels


def test_the_refinement_makes_the_target_surer_of_the_label(linear_classifier, linear_inpainting):
    options = {"candidates": 3, "iterations": 100}
    refined, labels = loss_of_label(linear_classifier, linear_inpainting(), **options)
    idle, same = loss_of_label(linear_classifier, linear_inpainting(), **options, identity_weight=0.0)
    assert torch.equal(labels, same)
    assert refined < 0.5 * idle


def test_of_several_tries_the_surest_is_kept(linear_classifier, linear_inpainting, monkeypatch):
    options = {"iterations": 1, "identity_weight": 0.0}
    one, _ = loss_of_label(linear_classifier, linear_inpainting(), tries=1, **options)
    prior = linear_inpainting()
    five, _ = loss_of_label(linear_classifier, prior, tries=5, **options)
    assert len(prior.seen[-1]) == len(GREY.images) and len(prior.seen[-2]) == 5 * len(GREY.images)
    assert five == pytest.approx(one)  # without a step the first is the surest
    descend = SecretGen.descend  # after which the tries stand in reverse: the surest is now the last
    reverse = lambda *given: descend(*given).unflatten(0, (-1, 5)).flip(1).flatten(0, 1)  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr(SecretGen, "descend", reverse)
        assert loss_of_label(linear_classifier, linear_inpainting(), tries=5, **options)[0] == pytest.approx(one)
    with pytest.raises(UserError, match=r"attack\.tries"):
        SecretGen(candidates=4, tries=5)


def test_the_critics_pull_where_the_target_is_closed(linear_classifier, linear_inpainting):
    def brightness(taste):
        view = black_box(lambda x: linear_classifier(x).softmax(1))
        prior = linear_inpainting(taste=taste, local_taste=taste)
        result = attack(view, prior, iterations=200, batch=1)
        assert all(float(z.abs().max()) <= 1 for z in prior.seen)
        return float(result.reconstruction.values[..., 2:6, 2:6].mean())

    assert brightness(10.0) > brightness(0.0) + 0.02
