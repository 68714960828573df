import dataclasses
from functools import partial
from itertools import pairwise

import pytest
import torch
from exact import cosine_distance, inside, variation

from mibench.attacks.families.generator_search import GeneratorSearch
from mibench.attacks.gifd import Gifd
from mibench.data import Examples
from mibench.errors import IncompatibleCellError, UserError
from mibench.knowledge import Knowledge
from mibench.metrics.mse import squared_errors
from mibench.model import StylePrior, StyleState
from mibench.optim.gradient_distance import cosine
from mibench.targets.mlp import Mlp
from mibench.tasks.instance import InstanceGoal

MLP = partial(Mlp, hidden=[32])
RADII = {"style_radii": [1.0], "feature_radii": [1.0]}


class ThreeLayers(StylePrior):
    """A perceptron of three layers that makes 8x8 images, each layer of a style and of the features before it.

    Remembers with ``watched`` the block, styles, features and images of every image that it makes.
    """

    name, latent_dim, num_ws, w_dim, num_blocks = "three_layers", 6, 3, 6, 3
    widths = (12, 24, 48)

    def __init__(self):
        super().__init__()
        draws = torch.Generator().manual_seed(2)
        self.of_style = [torch.randn(6, width, generator=draws) / 6**0.5 for width in self.widths]
        self.of_features = [torch.randn(*pair, generator=draws) / pair[0] ** 0.5 for pair in ((12, 24), (24, 48))]
        self.paint = torch.randn(48, 64, generator=draws) / 3
        self.watched = []

    def styles(self, z, psi=1.0, cutoff=None):
        return z[:, None].expand(-1, self.num_ws, -1)

    def blocks(self, ws, state, start, stop):
        for block in range(start, stop):
            h = ws[:, block] @ self.of_style[block]
            if state is not None:
                h = h + state.hidden @ self.of_features[block - 1]
            state = StyleState(h.tanh(), None)
        return state

    def finish(self, state):
        return (state.hidden @ self.paint).sigmoid().reshape(-1, 1, 8, 8)

    def synthesise(self, ws, state=None, start=0):
        images = super().synthesise(ws, state, start)
        hidden = None if state is None else state.hidden.detach().clone()
        self.watched.append((start, ws.detach().clone(), hidden, images.detach()))
        return images

    def critic(self, x):
        return x.mean((1, 2, 3))


class AroundZero(Gifd):
    """A stub that projects the features, not how far they went."""

    def bounded(self, values, centre, radius):
        return super().bounded(values, torch.zeros_like(centre), radius)


class Unbounded(Gifd):
    """A stub that does not project."""

    def bounded(self, values, centre, radius):
        return values


def attack(view, prior, kind=Gifd, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    method = kind(**{"iterations": 80, "restarts": 1, **RADII, **options})
    return method(view, Knowledge(latent_prior=prior), goal, seed=0).reconstruction


def pruned(message):
    """Returns a message with a tenth of every tensor's entries."""
    return {name: value * (value.abs() >= value.abs().flatten().quantile(0.9)) for name, value in message.items()}


def error(result, secret):
    return squared_errors(result.values, secret.x).median()


def apart(view, result):
    """Returns the distance of the gradient of every image found from the message."""
    sent = {name: torch.stack([one[name] for one in view.messages]) for name in view.messages[0]}
    return cosine(view.gradients(result.values[:, None], result.labels[:, None]), sent).detach()


def strayed(prior, block):
    """Returns how far styles and features went from where a stage started, in l1, at the most."""
    seen = [one for one in prior.watched if one[0] == block and len(one[1]) == len(prior.watched[0][1])]
    return [max(float((one[k] - seen[0][k]).abs().flatten(1).sum(1).max()) for one in seen) for k in (1, 2)]


def test_what_descends_is_the_formula(client_view, digits8):
    """Distance, total variation and norm with their weights, in the model's input space; latents keep their length."""
    torch.manual_seed(0)
    secret, prior = digits8.private.train[torch.tensor([1, 9])], ThreeLayers()
    view = client_view(MLP(spec=digits8.spec), secret)

    def look(method, objective, start, found, project, what):
        z, rows = torch.randn(2, 1, 6, generator=torch.Generator().manual_seed(1)), torch.arange(2)
        images = prior.synthesise(prior.styles(z[:, 0])).unflatten(0, (2, 1))
        sent = {name: torch.stack([one[name] for one in view.messages]) for name in view.messages[0]}
        apart = cosine_distance(view.updates(images, secret.y[:, None]), sent)
        inputs = view.model.normalise(images[:, 0]).reshape(2, 1, 8, 8)
        value, score = objective(rows, z)
        torch.testing.assert_close(score, apart)
        norms = inputs.flatten(1).norm(dim=1) / 64
        torch.testing.assert_close(value, apart + 0.7 * variation(inputs) + 0.3 * norms)
        lengths = [one.flatten(1).norm(dim=1) for one in (project(rows, [5 * z])[0], start[0])]
        torch.testing.assert_close(*lengths)

    inside(GeneratorSearch, "descend", lambda: attack(view, prior, tv=0.7, l2=0.3), look)


def test_every_stage_comes_closer_to_what_the_generator_cannot_make(digits_view):
    view, secret = digits_view(MLP, 10)
    results = [attack(view, ThreeLayers(), stages=stages) for stages in (1, 2, 3)]
    assert all(torch.equal(result.labels, secret.y) for result in results)
    distances = [apart(view, result) for result in results]
    assert all(bool((later <= earlier + 1e-6).all()) for earlier, later in pairwise(distances))

    def share(result):
        return float(error(result, secret) / error(results[0], secret))

    assert share(results[2]) < 0.7
    stub = attack(view, ThreeLayers(), style_radii=[0.0], feature_radii=[0.0])
    assert torch.equal(stub.values, results[0].values)
    assert share(stub) == 1


class Spoilt(ThreeLayers):
    """A stub that makes black images at its last block."""

    def synthesise(self, ws, state=None, start=0):
        return super().synthesise(ws, state, start) * (start < 2)


def test_the_best_of_all_stages_is_returned_where_the_last_is_worse(digits_view):
    view, _ = digits_view(MLP, 2)
    two, three = (attack(view, Spoilt(), stages=stages, iterations=10).values for stages in (2, 3))
    assert torch.equal(two, three) and bool(two.flatten(1).any(1).all())


@pytest.mark.parametrize("kind", [Gifd, AroundZero, Unbounded])
def test_styles_and_features_stay_in_the_balls_around_where_a_stage_started(kind, digits_view):
    view, _ = digits_view(MLP, 3)
    prior = ThreeLayers()
    attack(view, prior, kind, style_radii=[0.05, 0.1], feature_radii=[0.1, 0.05], iterations=30)
    far = [*strayed(prior, 1), *strayed(prior, 2)]
    limits = [0.05 * 18, 0.1 * 12, 0.1 * 18, 0.05 * 24]
    assert min(far) > 0.5
    assert all(moved <= limit + 1e-4 for moved, limit in zip(far, limits, strict=True)) == (kind is Gifd)


def test_a_stage_starts_at_the_best_image_of_the_one_before(style_prior, monkeypatch, digits_view):
    """Of a generator with a running image beside its features, which must go along."""
    seen, synthesise = [], style_prior.synthesise

    def remember(ws, state=None, start=0):
        images = synthesise(ws, state, start)
        seen.append((start, images.detach()))
        return images

    monkeypatch.setattr(style_prior, "synthesise", remember)
    view, _ = digits_view(MLP, 2, batch=2)
    result = attack(view, style_prior, iterations=10, restarts=1, style_radii=[0.0], feature_radii=[0.0])
    later = [images for block, images in seen if block == 1]
    assert len(later) == 10 + 2  # steps, the last point and what is judged
    for images in later:
        torch.testing.assert_close(images.clamp(0, 1), result.values, atol=1e-5, rtol=0)
    dropped = synthesise(*_entered(style_prior, keep=False)), synthesise(*_entered(style_prior, keep=True))
    assert not torch.allclose(*dropped, atol=1e-2)


def _entered(prior, keep):
    ws = prior.styles(prior.sample_latent(2, torch.Generator().manual_seed(0)))
    state = prior.blocks(ws, None, 0, 1)
    return ws, state if keep else dataclasses.replace(state, image=torch.zeros_like(state.image)), 1


def test_latents_stay_on_their_sphere(monkeypatch, digits_view):
    prior, view, seen = ThreeLayers(), digits_view(MLP, 2)[0], []
    styles = prior.styles
    monkeypatch.setattr(prior, "styles", lambda z: seen.append(z.detach().clone()) or styles(z))

    def lengths():
        seen.clear()
        attack(view, prior, stages=1, iterations=20)
        assert not torch.allclose(seen[0], seen[-1], atol=0.1)
        return torch.stack([z.norm(dim=1) for z in seen])

    kept = lengths()
    torch.testing.assert_close(kept, kept[:1].expand_as(kept))
    monkeypatch.setattr("mibench.attacks.gifd.sphere", lambda values, like: values)
    assert float((lengths() - kept).abs().max()) > 0.1


def test_against_pruning_the_adaptive_attacker_comes_closer(digits8, client_view):
    prior = ThreeLayers()
    x = prior.generate(prior.sample_latent(6, torch.Generator().manual_seed(4)))
    secret = Examples(x, torch.arange(6) % 5)
    torch.manual_seed(0)
    view = client_view(MLP(spec=digits8.spec), secret, change=pruned)
    plain, masked = (error(attack(view, prior, restarts=2, mask_sent=on), secret) for on in (False, True))
    assert masked < 0.01 * plain


def test_more_stages_than_blocks_are_refused(digits_view):
    with pytest.raises(IncompatibleCellError, match="only 3 blocks"):
        attack(digits_view(MLP, 2)[0], ThreeLayers(), stages=4)


def test_a_ball_needs_a_radius():
    with pytest.raises(UserError, match="radius"):
        Gifd(feature_radii=[])
