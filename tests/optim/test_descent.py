import torch

from mibench.optim.descent import adam_descent, in_chunks


def test_each_sample_goes_to_its_own_optimum_whatever_the_others_do():
    goal = torch.tensor([[1.0, -2.0], [3.0, 0.5]])

    def objective(x):
        return (x - goal[: len(x)]).square().sum(1)

    (both,) = adam_descent([torch.zeros(2, 2)], objective, range(400), lr=0.1)
    (alone,) = adam_descent([torch.zeros(1, 2)], objective, range(400), lr=0.1)
    assert torch.allclose(both, goal, atol=1e-2) and torch.allclose(both[:1], alone, atol=1e-6)


def test_the_start_is_left_alone_and_no_parameter_gathers_a_gradient():
    start, layer = torch.zeros(3, 2), torch.nn.Linear(2, 1)
    adam_descent([start], lambda x: layer(x).square()[:, 0], range(3), lr=0.1)
    assert torch.equal(start, torch.zeros(3, 2)) and layer.weight.grad is None


def test_what_is_projected_is_where_the_next_step_begins_and_what_is_told():
    told = []
    (found,) = adam_descent(
        [torch.zeros(1, 1)], lambda x: -x[:, 0], range(10), lr=0.5,
        project=lambda variables: [one.clamp(max=1.2) for one in variables],
        after=lambda variables, losses: told.append((variables[0].item(), losses.item())),
    )  # fmt: skip
    assert found.item() == torch.tensor(1.2).item() and len(told) == 10
    assert max(value for value, _ in told) <= 1.2001 and told[0][1] == 0


def test_a_schedule_scales_the_step():
    (half,) = adam_descent([torch.zeros(1, 1)], lambda x: x[:, 0], range(1), lr=0.5, schedule=lambda step: 0.5)
    assert abs(half.item() + 0.25) < 1e-4


def test_chunks_give_what_the_whole_gives():
    x, y = torch.arange(10.0).reshape(10, 1), torch.ones(10, 1)
    assert torch.equal(in_chunks(lambda a, b: a + b, 3, x, y), x + y)
