import pytest
import torch
from scipy.optimize import minimize

from mibench.optim.constraints import box, l1_ball, sphere


@pytest.mark.parametrize("seed", range(5))
def test_the_projection_is_the_nearest_point_of_the_ball(seed):
    draws = torch.Generator().manual_seed(seed)
    centre, away = torch.randn(1, 5, generator=draws).double(), 2 * torch.randn(1, 5, generator=draws).double()
    values, radius = centre + away, 1.5
    split = {"type": "ineq", "fun": lambda parts: radius - parts.sum()}  # v = p - n, p and n not negative
    goal = away[0].numpy()
    found = minimize(
        lambda parts: ((parts[:5] - parts[5:] - goal) ** 2).sum(), [0.1] * 10, bounds=[(0, None)] * 10,
        constraints=[split], options={"ftol": 1e-14, "maxiter": 1000},
    )  # fmt: skip
    expected = centre + torch.tensor(found.x[:5] - found.x[5:])
    assert torch.allclose(l1_ball(values, centre, radius), expected, atol=1e-5)


def test_each_sample_has_a_ball_of_its_own_and_what_is_inside_stays():
    centre = torch.full((3, 2, 2), 5.0)
    values = centre + torch.tensor([0.1, 1.0, 100.0]).reshape(3, 1, 1)
    projected = l1_ball(values, centre, 2.0)
    assert torch.equal(projected[0], values[0])
    sizes = (projected - centre).abs().flatten(1).sum(1)
    assert (sizes <= 2 * (1 + 1e-5)).all() and torch.allclose(sizes[1:], torch.tensor(2.0))


def test_a_box_holds_on_both_sides():
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.5])
    held = box(torch.tensor([[-3.0, 2.0], [3.0, -2.0], [0.5, 0.2]]), low, high)
    assert torch.equal(held, torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.5, 0.2]]))
    assert torch.equal(box(torch.tensor([-3.0, 3.0]), -1, 1), torch.tensor([-1.0, 1.0]))


def test_a_vector_comes_back_to_its_own_sphere():
    start = torch.randn(3, 2, 5, generator=torch.Generator().manual_seed(0))
    moved = start + 1
    back = sphere(moved, start)
    torch.testing.assert_close(back.norm(dim=-1), start.norm(dim=-1))
    torch.testing.assert_close(torch.cosine_similarity(back, moved, dim=-1), torch.ones(3, 2))
    assert torch.equal(sphere(torch.zeros(1, 5), torch.ones(1, 5)), torch.zeros(1, 5))
