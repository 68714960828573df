import pytest
import torch
from torch import nn
from torch.func import jacrev

from mibench.data import Examples
from mibench.defenses.base import Client, Defense
from mibench.defenses.soteria import Soteria, relative_sensitivity
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.targets.cnn import Cnn
from mibench.targets.lenet import LeNet
from mibench.targets.mlp import Mlp


class Flat(Classifier):
    """One linear layer: the representation is the input."""

    def __init__(self):
        super().__init__()
        self.normalise = nn.Identity()
        self.stages = nn.ModuleList([nn.Flatten()])
        self.head = nn.Linear(64, 5)


class Fixed(Soteria):
    """A stub: prunes as many columns, but always the same."""

    def update(self, gradient, client):
        weight = gradient["head.weight"].clone()
        weight[:, : int(weight.shape[1] * self.percentile / 100)] = 0
        return {**gradient, "head.weight": weight}


@pytest.fixture(scope="module")
def model(digits8):
    torch.manual_seed(0)
    return LeNet(spec=digits8.spec, channels=8).eval()  # 32 entries before the head


def pruned(update):
    """Which columns of the head's gradient are zero."""
    return (update["head.weight"] == 0).all(0)


def by_hand(model, x):
    """The sensitivities of a batch, one example after another, with the full Jacobian."""
    total = 0
    for one in x.split(1):
        jacobian = jacrev(lambda value: model.features(value)[0])(one)
        total = total + jacobian.flatten(1).norm(dim=1) / (model.features(one)[0] + 0.1)
    return total.detach()


def rows(split, *index):
    return split.private.train[torch.tensor(index)]


def test_the_score_of_a_batch_is_the_sum_over_its_examples(model, digits8):
    x = digits8.private.train.x[:3]
    singles = sum(relative_sensitivity(model, x[at : at + 1]) for at in range(3))
    torch.testing.assert_close(relative_sensitivity(model, x), singles)
    torch.testing.assert_close(relative_sensitivity(model, x), by_hand(model, x))


@pytest.mark.parametrize("percentile", [1.0, 25.0, 60.0])
@pytest.mark.parametrize("index", [(0,), (3, 4, 5)])
def test_the_least_sensitive_columns_are_pruned_and_nothing_else_is_touched(share, model, digits8, percentile, index):
    batch = rows(digits8, *index)
    clean = share(Defense(), model, batch)

    def chosen(kind):
        sent = share(kind(percentile=percentile), model, batch)
        assert all(torch.equal(sent[name], value) for name, value in clean.items() if name != "head.weight")
        kept = ~pruned(sent)
        assert torch.equal(sent["head.weight"][:, kept], clean["head.weight"][:, kept])
        return set(torch.nonzero(~kept).flatten().tolist())

    order = by_hand(model, batch.x).argsort().tolist()
    found = chosen(Soteria)
    assert abs(len(found) - percentile / 100 * 32) <= 1
    assert found == set(order[: len(found)])
    assert chosen(Fixed) != set(order[: len(chosen(Fixed))]) or not chosen(Fixed)


def test_the_mask_changes_with_the_input(share, digits8):
    """Measured: six masks for six images."""
    torch.manual_seed(0)
    model = Mlp(spec=digits8.spec, hidden=(40,)).eval()

    def masks(defense):
        return {tuple(pruned(share(defense, model, rows(digits8, index))).tolist()) for index in range(6)}

    assert len(masks(Soteria(percentile=60.0))) >= 4
    assert len({row[:24] for row in masks(Fixed(percentile=60.0))}) == 1


def test_what_is_pruned_cannot_be_read_off_a_linear_model(share, digits8):
    """dW / db is the input to the pixel; behind the defense it is exactly zero at the brightest sixteen."""
    torch.manual_seed(0)
    flat, batch = Flat().eval(), rows(digits8, 7)
    x = batch.x.flatten()

    def inverted(defense):
        sent = share(defense, flat, batch)
        return sent["head.weight"][0] / sent["head.bias"][0]

    assert torch.allclose(inverted(Defense()), x, atol=1e-5)
    found = inverted(Soteria(percentile=25.0))
    gone = (found == 0) & (x > 0)
    assert 10 <= int(gone.sum()) <= 17
    assert torch.allclose(found[~gone], x[~gone], atol=1e-5)
    assert x[gone].min() >= x[~gone].max() > 0


def test_dead_units_are_pruned_first_and_ties_stay(share, digits8):
    """Half of the units are dead: nothing is below the 25th percentile, 0, and the 75th takes ten others too."""
    torch.manual_seed(0)
    model, batch = Mlp(spec=digits8.spec, hidden=(40,)).eval(), rows(digits8, 0)
    with torch.no_grad():
        model.stages[0][0].bias[:20] = -100.0
        model.stages[0][0].bias[20:] = 100.0
    clean = share(Defense(), model, batch)
    assert int(pruned(clean).sum()) == 20
    assert torch.equal(share(Soteria(percentile=25.0), model, batch)["head.weight"], clean["head.weight"])
    assert int(pruned(share(Soteria(percentile=75.0), model, batch)).sum()) == 30


def test_it_works_on_batch_norm_and_pooling(share, digits8):
    torch.manual_seed(0)
    model, batch = Cnn(spec=digits8.spec, width=8).eval(), rows(digits8, 0, 1)
    assert int(pruned(share(Soteria(percentile=50.0), model, batch)).sum()) >= 14


def test_dlg_sees_less_unless_it_leaves_the_head_out(dlg_psnr):
    """Measured: 5.6 dB behind the defense, 57 dB without the head, which is what no defense gives without it."""
    assert dlg_psnr(Soteria()) < dlg_psnr(Defense()) - 20
    assert dlg_psnr(Soteria(), without="head") == dlg_psnr(Defense(), without="head") > 40


def test_percentile_zero_is_the_identity(share, model, digits8):
    batch = rows(digits8, 0)
    clean, sent = share(Defense(), model, batch), share(Soteria(percentile=0.0), model, batch)
    assert all(torch.equal(sent[name], value) for name, value in clean.items())


def test_a_head_that_is_not_linear_is_refused(gradient_of):
    model = Flat().eval()
    model.head = nn.Sequential(nn.Linear(64, 5))
    batch = Examples(torch.rand(1, 1, 8, 8), torch.tensor([0]))
    with pytest.raises(UserError, match="linear layer"):
        Soteria().update(gradient_of(Defense(), model, batch), Client(0, 0, 2, model, batch, seed=0))


@pytest.mark.parametrize("percentile", [-1.0, 100.0, float("nan")])
def test_impossible_options_are_refused(percentile):
    with pytest.raises(UserError, match=r"defense\.percentile"):
        Soteria(percentile=percentile)


def test_a_cell_shares_a_pruned_head(make_cell):
    """LeNet on digits at 32 pixels has 768 entries before its head, of which 1 % are 8 columns."""
    cell = make_cell("attack=dlg", "defense=soteria")
    found = pruned(cell.observation.view.messages[0])
    assert abs(int(found.sum()) - len(found) / 100) <= 1
