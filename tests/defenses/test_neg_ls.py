import pytest
import torch
from torch import nn

from mibench.access import LocalTraining
from mibench.defenses.base import Defense
from mibench.defenses.neg_ls import NegLs
from mibench.entry import Objective
from mibench.errors import UserError
from mibench.settings.updates import client_update
from mibench.targets.mlp import Mlp
from mibench.training import Batch, Recipe, cross_entropy


class Constant(nn.Module):
    """A model whose answer is given."""

    objective = Objective()

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([logits]))

    def forward(self, x):
        return self.logits


def answered(logits, loss, progress=1.0):
    model = Constant(logits)
    value = loss(Batch(model, torch.zeros(1, 1), torch.tensor([0]), progress))
    return value.item(), torch.autograd.grad(value, model.logits)[0][0]


def test_the_loss_is_that_of_the_formula():
    assert answered([2.0, 1.0, 0.0], NegLs(alpha=0.0).loss)[0] == pytest.approx(0.407606, abs=1e-6)
    assert answered([2.0, 1.0, 0.0], NegLs().loss)[0] == pytest.approx(0.357606, abs=1e-6)
    positive = nn.functional.cross_entropy(torch.tensor([[2.0, 1, 0]]), torch.tensor([0]), label_smoothing=0.05)
    assert answered([2.0, 1.0, 0.0], NegLs(alpha=0.05).loss)[0] == pytest.approx(positive.item(), abs=1e-6)


def test_a_certain_model_is_pushed_further_where_cross_entropy_has_no_gradient():
    expected = torch.tensor([-0.0375, 0.0125, 0.0125, 0.0125])
    assert torch.allclose(answered([50.0, 0, 0, 0], NegLs().loss)[1], expected, atol=1e-6)
    assert float(answered([50.0, 0, 0, 0], cross_entropy)[1].abs().max()) < 1e-12


def test_the_factor_follows_the_authors_epochs():
    """At the beginning of epoch t of 100, the code's factor is alpha (t + 1 - 50) / 50 from 50 to 74."""
    defense = NegLs()
    for epoch in range(100):
        code = 0 if epoch < 50 else -0.05 * (epoch + 1 - 50) / 50 if epoch < 75 else -0.05
        assert abs(defense.factor(epoch / 100) - code) <= 0.05 / 50 + 1e-12
    assert defense.factor(0.5) == 0
    assert defense.factor(0.7499) == pytest.approx(-0.025, abs=1e-4)
    assert defense.factor(0.75) == defense.factor(1.0) == -0.05


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.6, 1.0])
def test_a_positive_factor_is_plain_label_smoothing_from_the_first_step(progress):
    assert NegLs(alpha=0.05).factor(progress) == 0.05
    loss, slope = answered([2.0, 1.0, 0.0], NegLs(alpha=0.05).loss, progress)
    smoothed = nn.functional.cross_entropy(torch.tensor([[2.0, 1, 0]]), torch.tensor([0]), label_smoothing=0.05)
    assert loss == pytest.approx(smoothed.item(), abs=1e-6)
    wanted = torch.tensor([2.0, 1, 0]).softmax(0) - torch.tensor([0.95 + 0.05 / 3, 0.05 / 3, 0.05 / 3])
    assert torch.allclose(slope, wanted, atol=1e-6)


class Immediate(NegLs):
    """A stub: no schedule."""

    def factor(self, progress):
        return self.alpha


def test_a_factor_without_schedule_is_another():
    assert Immediate().factor(0.1) != NegLs().factor(0.1)


def test_negative_smoothing_spreads_the_logits_and_positive_gathers_them(train_under, accuracy_of, digits8):
    """Measured at alpha -0.05, 0 and 0.05: top logit 181, 10.3 and 4.2, range 432, 17.4 and 5.8, accuracy 0.987, 1, 1.

    Without a factor (the stub: a loss that ignores alpha) all three are the middle row.
    """

    def trained(alpha):
        recipe = Recipe(epochs=30, batch_size=64, lr=2e-3, schedule="constant")
        model = train_under(NegLs(alpha=alpha), Mlp, recipe, hidden=(64, 32))
        with torch.no_grad():
            logits = model(digits8.private.test.x)
        top = logits.max(1).values
        return float(top.mean()), float((top - logits.min(1).values).mean()), accuracy_of(model)

    negative, none, positive = map(trained, (-0.05, 0.0, 0.05))
    assert negative[1] > 2 * none[1] > 2 * 1.3 * positive[1]
    assert negative[0] > 2 * none[0] > 2 * 1.3 * positive[0]
    assert min(negative[2], positive[2]) >= none[2] - 0.05


def test_without_a_factor_the_training_is_the_plain_one(train_under):
    def weights(defense):
        return train_under(defense, Mlp, Recipe(epochs=2), hidden=(16,)).head.weight

    plain = weights(Defense())
    assert torch.equal(weights(NegLs(alpha=0.0)), plain)
    assert not torch.equal(weights(NegLs()), plain)


def test_a_clients_gradient_has_the_factor_of_its_round(digits8):
    torch.manual_seed(0)
    model, batch = Mlp(spec=digits8.spec), digits8.private.train[torch.arange(4)]

    def shared(defense, progress):
        return client_update(model, batch, defense, LocalTraining(), False, progress)[0]["head.bias"]

    plain = shared(Defense(), 1.0)
    assert torch.equal(shared(NegLs(), 0.0), plain)
    assert not torch.allclose(shared(NegLs(), 1.0), plain, atol=1e-4)
    assert torch.equal(shared(NegLs(warmup=0.0, full=0.0), 0.0), shared(NegLs(), 1.0))


@pytest.mark.parametrize("options", [{"alpha": 1.0}, {"warmup": 1.0}, {"full": 0.2}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UserError, match=rf"defense\.{next(iter(options))}"):
        NegLs(**options)
