import pytest
import torch

from mibench.optim.gradient_distance import cosine, layer_cosine, on_sent, squared


def gradients(n, seed):
    draws = torch.Generator().manual_seed(seed)
    shapes = {"a": (3, 2), "b": (4,), "c": (2, 2, 2)}
    return {name: torch.randn(n, *shape, generator=draws) for name, shape in shapes.items()}


def flat(one, row=0):
    return torch.cat([value[row].flatten() for value in one.values()])


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("sent", [1, 3])
def test_distances_are_what_their_formulas_say(n, sent):
    if n == 1 and sent == 3:
        pytest.skip("one problem has one message")
    ours, theirs = gradients(n, 0), gradients(sent, 1)
    for row in range(n):
        g, t = flat(ours, row), flat(theirs, row if sent > 1 else 0)
        torch.testing.assert_close(squared(ours, theirs)[row], (g - t).square().sum())
        torch.testing.assert_close(cosine(ours, theirs)[row], 1 - torch.cosine_similarity(g, t, dim=0))
        each = [
            1
            - torch.cosine_similarity(ours[name][row].flatten(), theirs[name][row if sent > 1 else 0].flatten(), dim=0)
            for name in ours
        ]
        torch.testing.assert_close(layer_cosine(ours, theirs)[row], torch.stack(each).mean())


def test_tensors_that_were_not_sent_do_not_count():
    ours, theirs = gradients(2, 0), gradients(2, 1)
    del theirs["b"]
    smaller = {name: value for name, value in ours.items() if name != "b"}
    for distance in (squared, cosine, layer_cosine):
        torch.testing.assert_close(distance(ours, theirs), distance(smaller, theirs))


def test_what_each_distance_is_blind_to():
    ours, theirs = gradients(2, 0), gradients(2, 1)
    scaled = {name: 10 * value for name, value in theirs.items()}
    torch.testing.assert_close(cosine(ours, scaled), cosine(ours, theirs))
    assert not torch.allclose(squared(ours, scaled), squared(ours, theirs))
    each = {name: factor * value for factor, (name, value) in zip((2.0, 5.0, 0.1), theirs.items(), strict=True)}
    torch.testing.assert_close(layer_cosine(ours, each), layer_cosine(ours, theirs))
    assert not torch.allclose(cosine(ours, each), cosine(ours, theirs))


def test_weights_of_one_change_nothing_and_of_zero_leave_a_tensor_out():
    ours, theirs = gradients(2, 0), gradients(2, 1)
    torch.testing.assert_close(cosine(ours, theirs, [1, 1, 1]), cosine(ours, theirs))
    del (without := dict(theirs))["b"]
    torch.testing.assert_close(cosine(ours, theirs, [1, 0, 1]), cosine(ours, without))


def test_zeros_have_no_direction_and_a_finite_derivative():
    ours = {name: torch.zeros_like(value).requires_grad_(True) for name, value in gradients(1, 0).items()}
    theirs = {name: torch.zeros_like(value) for name, value in gradients(1, 1).items()}
    for distance, expected in ((cosine, 1.0), (layer_cosine, 0.0)):
        found = distance(ours, theirs)
        assert found.item() == expected
        assert all(bool(g.isfinite().all()) for g in torch.autograd.grad(found.sum(), list(ours.values())))


@pytest.mark.parametrize("sent", [1, 3])
def test_what_was_pruned_away_can_be_left_out(sent):
    ours = gradients(3, 0)
    theirs = {name: value[:sent] * (value[:sent].abs() > 0.7) for name, value in ours.items()}
    other = {name: value.where(theirs[name] != 0, 5.0) for name, value in ours.items()}
    for distance in (squared, cosine):
        assert float(distance(ours, theirs)[0]) > 0.01
        assert float(on_sent(distance)(ours, theirs)[0]) < 1e-6
        torch.testing.assert_close(on_sent(distance)(other, theirs), on_sent(distance)(ours, theirs))
        assert float((distance(other, theirs) - distance(ours, theirs)).abs().min()) > 0.01
    full = gradients(3, 1)
    torch.testing.assert_close(on_sent(cosine)(ours, full), cosine(ours, full))
