import pytest
import torch

from mibench.access import GradientsView, Ledger
from mibench.data import Column, InputSpec
from mibench.optim.input_space import REACH, Relaxed
from mibench.targets.mlp import Mlp

COLUMNS = (
    Column("kind", ("a", "b", "c")),
    Column("size", low=0.0, high=10.0),
    Column("only", ("a",)),
    Column("free"),
)

#: As an encoder that standardises one-hot columns too would have it.
MEAN = torch.tensor([0.2, 0.3, 0.5, 4.0, 0.0, 100.0])
STD = torch.tensor([0.4, 0.5, 0.5, 2.0, 1.0, 10.0])


@pytest.fixture
def space():
    low, high = torch.full((6,), -REACH), torch.full((6,), REACH)
    low[3], high[3] = (0 - 4) / 2, (10 - 4) / 2
    return Relaxed(COLUMNS, MEAN, STD, low, high)


def points(*shape, scale=1.0):
    return scale * torch.randn(*shape, 6, generator=torch.Generator().manual_seed(0))


def test_categories_pass_a_softmax_of_what_they_were_before_they_were_standardised(space):
    u = points(2, 5)
    weights = (u[..., :3] * STD[:3] + MEAN[:3]).exp()
    expected = (weights / weights.sum(-1, keepdim=True) - MEAN[:3]) / STD[:3]
    torch.testing.assert_close(space.to_inputs(u)[..., :3], expected)
    assert not torch.allclose((u[..., :3].softmax(-1) - MEAN[:3]) / STD[:3], expected, atol=0.05), "the order matters"


def test_numbers_pass_a_sigmoid_into_their_bounds(space):
    u = points(2, 5, scale=20.0)
    made = space.to_inputs(u) * STD + MEAN
    torch.testing.assert_close(made[..., 3], 10 / (1 + (-u[..., 3]).exp()))
    torch.testing.assert_close(made[..., 5], 100 + 10 * REACH * (2 / (1 + (-u[..., 5]).exp()) - 1))
    assert float(u[..., 3].abs().max()) > 10


def test_a_category_of_one_column_passes_as_it_is(space):
    u = points(2, 5)
    assert torch.equal(space.to_inputs(u)[..., 4], u[..., 4])
    assert not space.decode(u)[..., 2].any()


def test_either_can_be_left_out(space):
    u = points(1, 4, scale=9.0)
    plain = Relaxed(COLUMNS, MEAN, STD, space.low, space.high, softmax=False, sigmoid=False)
    assert torch.equal(plain.to_inputs(u), u)
    records = plain.decode(u)
    assert 0 <= float(records[..., 1].min()) <= float(records[..., 1].max()) <= 10, "numbers are clamped in the end"


def test_what_is_read_of_decided_records_is_the_records(space):
    records = torch.tensor([[2.0, 7.5, 0.0, 93.0], [0.0, 0.0, 0.0, 110.0]])
    torch.testing.assert_close(space.read(space.encode(records)), records)


def test_decoding_takes_the_strongest_category_and_numbers_in_their_units(space):
    u = torch.tensor([[[9.0, 0.0, 0.0, 0.0, 0.0, 0.0]]])
    assert space.decode(u).tolist() == [[[0.0, 5.0, 0.0, 100.0]]]


def test_the_entropy_of_a_category_is_1_of_a_guess_and_0_of_a_decided_one(space):
    records = torch.tensor([[2.0, 7.5, 0.0, 93.0]])
    even = (torch.full((1, 6), 1 / 3) - MEAN) / STD
    torch.testing.assert_close(space.entropy(space.encode(records))[:, [0, 2]], torch.zeros(1, 2))
    torch.testing.assert_close(space.entropy(even)[:, 0], torch.ones(1))
    assert bool(space.entropy(even)[:, [1, 3]].isnan().all())


def test_the_encoder_and_the_schema_give_scale_and_bounds():
    spec = InputSpec("tabular", (4,), 2, COLUMNS)
    model = Mlp(spec=spec, hidden=[4])
    records = torch.tensor([[0.0, 1.0, 0.0, 10.0], [1.0, 3.0, 0.0, 30.0], [2.0, 5.0, 0.0, 20.0]])
    model.adapt(records)
    view = GradientsView.of(model, [], 1, spec, Ledger(), torch.device("cpu"))
    space = Relaxed.of(view)
    assert space.mean.tolist() == [0, 0, 0, 3, 0, 20]
    assert space.std.tolist() == [1, 1, 1, 2, 1, 10]
    assert (float(space.low[3]), float(space.high[3])) == (-1.5, 3.5)
    assert (float(space.low[5]), float(space.high[5])) == (-REACH, REACH)
    torch.testing.assert_close(view.relaxed().model(space.encode(records)), view.model(records))
