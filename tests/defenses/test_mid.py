import copy
import math
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.distributions import Normal, kl_divergence

from mibench.defenses.base import Defense
from mibench.defenses.mid import Mid, VariationalHead
from mibench.errors import UserError
from mibench.model import Classifier
from mibench.nn.bottleneck import divergence
from mibench.optim.label_recovery import bias_corrected, bias_sign
from mibench.targets.mlp import Mlp
from mibench.training import Batch, Recipe, Training, is_correct

CONTEXT = SimpleNamespace(seed=0)


class Deterministic(Mid):
    """A stub: the penalty without the draw."""

    def loss(self, batch):
        mean, deviation = batch.model.head.code(batch.model.features(batch.x))
        logits = batch.model.head.classifier(mean)
        return nn.functional.cross_entropy(logits, batch.y) + self.beta * divergence(mean, deviation).mean()


@pytest.fixture
def model(digits8):
    torch.manual_seed(0)
    return Mid().architecture(Mlp(spec=digits8.spec, hidden=(64, 32)), CONTEXT).eval()


def test_the_code_has_half_the_features_and_begins_almost_certain(model, digits8):
    mean, deviation = model.head.code(model.features(digits8.private.train.x[:50]))
    assert mean.shape == deviation.shape == (50, 16)
    with torch.no_grad():
        model.head.encoder.bias.zero_(), model.head.encoder.weight.zero_()
        _, deviation = model.head.code(model.features(digits8.private.train.x[:1]))
    assert torch.allclose(deviation, torch.full((1, 16), math.log1p(math.exp(-5))), rtol=1e-3)  # 0.0067


def test_the_penalty_is_the_divergence_of_torch_in_nats(model, digits8):
    mean, deviation = model.head.code(model.features(digits8.private.train.x[:20]))
    expected = kl_divergence(Normal(mean, deviation), Normal(0.0, 1.0)).sum(1)
    assert torch.allclose(divergence(mean, deviation), expected, rtol=1e-4)
    batch = Batch(model, digits8.private.train.x[:20], digits8.private.train.y[:20])

    def loss(beta):
        torch.manual_seed(0)
        return Mid(beta=beta).loss(batch)

    assert torch.allclose(loss(1.0) - loss(0.25), 0.75 * expected.mean(), rtol=1e-4)


def test_without_deviation_it_is_a_plain_network(model, digits8):
    """At sigma 0 and beta 0 answer and loss are those of the same layers without a draw."""
    x, y = digits8.private.train.x[:20], digits8.private.train.y[:20]
    with torch.no_grad():
        model.head.encoder.bias[16:] = -1e4
        plain = model.head.classifier(model.head.encoder(model.features(x))[:, :16])
        assert torch.allclose(model(x), plain, atol=1e-5)
        cross_entropy = nn.functional.cross_entropy(plain, y)
        assert torch.allclose(Mid(beta=0).loss(Batch(model, x, y)), cross_entropy, atol=1e-5)
    assert bool(divergence(*model.head.code(model.features(x))).isfinite().all())


def test_two_answers_differ_and_a_copy_repeats_them(model, digits8):
    x, again = digits8.private.train.x[:20], copy.deepcopy(model)
    first, second = model.predict_proba(x), model.predict_proba(x)
    assert not torch.equal(first, second)
    assert torch.equal(again.predict_proba(x), first)
    assert torch.equal(again.predict_proba(x), second)
    assert not torch.equal(model.train()(x), model.train()(x))


def test_the_loss_is_of_one_draw_and_a_loss_of_the_mean_is_not(gradient_of, model, digits8):
    batch = digits8.private.train[torch.arange(8)]

    def gap(defense):
        one, other = (gradient_of(defense, model, batch, seed)["head.encoder.weight"] for seed in (0, 1))
        return float((one - other).abs().max())

    assert gap(Mid()) > 1e-4
    assert gap(Deterministic()) == 0


@pytest.fixture(scope="module")
def trained(digits8):
    """Trains an MLP under a defense: mean divergence on the test data, accuracy, spread of repeated scores."""

    def train(defense):
        torch.manual_seed(0)
        model = defense.architecture(Mlp(spec=digits8.spec, hidden=(64, 32)), CONTEXT)
        recipe = Recipe(epochs=20, batch_size=64, lr=2e-3, schedule="constant")
        model = defense.fit(Training(model, digits8.private.train, recipe, 0, torch.device("cpu")))
        test = digits8.private.test
        accuracy = is_correct(model.predict_proba, test).float().mean().item()
        if not isinstance(defense, Mid):
            return 0.0, accuracy, 0.0
        with torch.no_grad():
            nats = divergence(*model.head.code(model.features(test.x))).mean().item()
        answers = torch.stack([model.predict_proba(test.x) for _ in range(5)])
        return nats, accuracy, answers.std(0).mean().item()

    return train


def test_the_divergence_falls_with_its_weight_until_nothing_is_left(trained):
    """Measured at beta 0, 1e-3, 1e-2, 0.1 and 1.

    Nats 193, 33, 12, 3.7 and 0.14; accuracy 0.996, 1, 0.987, 0.911 and 0.187 (plain 0.996); deviation of repeated
    scores 0.0001, 0.004, 0.016, 0.083 and 0.057. A penalty whose weight is not used (a stub) leaves the first row.
    """
    rows = {beta: trained(Mid(beta=beta)) for beta in (0.0, 1e-3, 1e-2, 1e-1, 1.0)}
    plain = trained(Defense())
    nats = [row[0] for row in rows.values()]
    assert all(after < 0.8 * before for before, after in pairwise(nats))
    assert rows[1e-3][1] >= plain[1] - 0.03
    assert rows[1.0][1] < 0.5
    assert rows[1e-2][2] > 10 * rows[0.0][2]


def test_a_head_that_is_not_linear_is_refused():
    model = Classifier()
    model.head = nn.Sequential(nn.Linear(4, 2))
    with pytest.raises(UserError, match="linear layer"):
        Mid().architecture(model, CONTEXT)


@pytest.mark.parametrize(("option", "value"), [("dim", 0), ("beta", -1.0)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(UserError, match=rf"defense\.{option}"):
        Mid(**{option: value})


def test_a_cells_attacker_holds_the_defended_model(make_cell):
    view = make_cell("attack=dlg", "defense=mid", "setting.rounds=1", "setting.clients=2").observation.view
    assert isinstance(view.model.head, VariationalHead)
    x, y = torch.rand(2, 1, *view.spec.shape), torch.zeros(2, 1, dtype=torch.long)
    assert len(next(iter(view.gradients(x, y).values()))) == 2


def test_labels_are_read_off_the_last_layer_of_its_head(make_cell):
    view = make_cell("attack=dlg", "defense=mid", "setting.clients=2").observation.view
    x, y = torch.rand(1, 1, *view.spec.shape), torch.tensor([[3]])
    sent = {name: one[0] for name, one in view.gradients(x, y).items()}
    assert "head.bias" not in sent
    assert bias_sign(sent, 1).tolist() == bias_corrected(sent, 1).tolist() == [3]
