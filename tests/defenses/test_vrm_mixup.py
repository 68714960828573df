import pytest
import torch
from torch.nn.functional import cross_entropy

from mibench.access import LocalTraining
from mibench.data import Column, Examples, InputSpec
from mibench.defenses.base import DefenderData, Defense, DefenseContext
from mibench.defenses.vrm_mixup import VrmMixup
from mibench.errors import UserError
from mibench.seeding import seeded
from mibench.settings.updates import client_update
from mibench.targets.mlp import Mlp
from mibench.training import Batch, Recipe

CPU = torch.device("cpu")


class LabelsOnly(VrmMixup):
    """A stub: mixes the labels and leaves the image as it is."""

    def mixed(self, one, other, kept):
        return one


@pytest.fixture(scope="module")
def client(digits8):
    """A model, a client's single example, and what the client owns: that one and another."""
    torch.manual_seed(0)
    share = digits8.private.train[torch.tensor([3, 8])]
    return Mlp(spec=digits8.spec, hidden=(32,)), share[torch.tensor([0])], share


def inverted(client, spec, defense, seed=0):
    """What a linear first layer's gradient gives away of a client's example: an image in [0, 1]."""
    model, batch, share = client
    context = DefenseContext(spec, DefenderData(share, share[torch.arange(0)], None), 0, CPU)
    with seeded(seed):
        sent = client_update(model, defense.data(batch, context), defense, LocalTraining(), False)[0]
    row = sent["stages.0.0.bias"].abs().argmax()
    return (sent["stages.0.0.weight"][row] / sent["stages.0.0.bias"][row]).reshape(1, 1, 8, 8) / 2 + 0.5


def mse(one, other):
    return float((one - other).square().mean())


@pytest.mark.parametrize("mode", ["mixup", "cutmix"])
def test_the_loss_is_that_of_the_docstring(client, monkeypatch, mode):
    """Images and labels by one factor, which is the share of the pixels that stay where a box is pasted."""
    model, _, share = client
    own, other = share, Examples(share.x.flip(0), (share.y + torch.tensor([1, 2])) % 5)
    kept = torch.tensor(0.8) if mode == "mixup" else (torch.arange(64).reshape(1, 1, 8, 8) >= 13).float()
    monkeypatch.setattr(VrmMixup, "kept", lambda self, x: kept)
    monkeypatch.setattr(VrmMixup, "partners", lambda self, batch: other)
    logits = model(kept * own.x + (1 - kept) * other.x)
    weight = float(kept.mean())
    expected = weight * cross_entropy(logits, own.y) + (1 - weight) * cross_entropy(logits, other.y)
    torch.testing.assert_close(VrmMixup(mode=mode).loss(Batch(model, own.x, own.y)), expected)


def test_the_share_that_stays_is_drawn_and_a_box_covers_the_rest():
    with seeded(0):
        shares = torch.stack([VrmMixup(alpha=1.0).kept(torch.zeros(1, 1, 8, 8)) for _ in range(300)])
        even = torch.stack([VrmMixup(alpha=50.0).kept(torch.zeros(1, 1, 8, 8)) for _ in range(300)])
        boxes = [VrmMixup(mode="cutmix", alpha=1.0).kept(torch.zeros(1, 1, 32, 32)) for _ in range(50)]
    assert float(shares.std()) == pytest.approx(12**-0.5, abs=0.03)  # uniform
    assert float(even.std()) == pytest.approx((1 / 404) ** 0.5, abs=0.01)
    assert {tuple(box.shape) for box in boxes} == {(1, 1, 32, 32)}
    assert all(bool(((box == 0) | (box == 1)).all()) for box in boxes)
    with seeded(0):
        drawn = float(torch.distributions.Beta(0.3, 0.3).sample())
    with seeded(0):
        box = VrmMixup(mode="cutmix", alpha=0.3).kept(torch.zeros(1, 1, 32, 32))
    assert float(box.mean()) == pytest.approx(drawn, abs=0.05)


def test_noise_of_the_stated_deviation_is_added():
    with seeded(0):
        mixed = VrmMixup(sigma=0.2).mixed(torch.ones(1, 1, 64, 64), torch.zeros(1, 1, 64, 64), torch.tensor(0.25))
    assert float(mixed.mean()) == pytest.approx(0.25, abs=0.02) and float(mixed.std()) == pytest.approx(0.2, abs=0.01)


def test_the_analytic_inversion_returns_the_mix_and_never_the_example(client, digits8):
    """Measured: error to the mix below 1e-12 over five draws; the stub gives the example with the same error."""
    _, batch, share = client
    other = share.x[1:]
    for seed in range(5):
        with seeded(seed):
            defense = VrmMixup()
            torch.multinomial(torch.ones(2), 1)  # as the partner is drawn
            kept = defense.kept(batch.x)
        mix = kept * batch.x + (1 - kept) * other
        found = inverted(client, digits8.spec, defense, seed)
        assert float((found - mix).abs().max()) < 1e-5
        assert mse(found, batch.x) == pytest.approx(mse(mix, batch.x), abs=1e-6)
        assert mse(found, batch.x) == pytest.approx((1 - float(kept)) ** 2 * mse(other, batch.x), abs=1e-6)
        assert mse(inverted(client, digits8.spec, LabelsOnly(), seed), batch.x) < 1e-9


def test_an_even_mix_errs_by_a_quarter_of_the_distance(client, digits8):
    """Measured: 0.2500; the stub 0."""
    _, batch, share = client
    whole = mse(share.x[1:], batch.x)
    assert mse(inverted(client, digits8.spec, VrmMixup(alpha=1e6)), batch.x) / whole == pytest.approx(0.25, abs=1e-3)
    assert mse(inverted(client, digits8.spec, LabelsOnly(alpha=1e6)), batch.x) / whole < 1e-6


def test_nobody_is_his_own_partner(digits8):
    torch.manual_seed(0)
    rows = Examples(torch.arange(5.0).reshape(5, 1), torch.arange(5))
    for _ in range(50):
        partner = VrmMixup().partners(rows)
        assert sorted(partner.y.tolist()) == [0, 1, 2, 3, 4]
        assert not bool((partner.y == rows.y).any())
        assert torch.equal(partner.x[:, 0].long(), partner.y)


def test_a_single_example_without_another_is_refused(client, digits8):
    model, batch, _ = client
    with pytest.raises(UserError, match="the same owner"):
        VrmMixup().loss(Batch(model, batch.x, batch.y))
    with pytest.raises(UserError, match="the same owner"):
        inverted((model, batch, batch), digits8.spec, VrmMixup())


def test_the_loss_is_that_of_both_labels(client, digits8):
    model, _, _ = client
    two = digits8.private.train[torch.tensor([0, 1])]
    with seeded(1):
        loss = VrmMixup().loss(Batch(model, two.x, two.y))
    with seeded(1):
        torch.randperm(2)
        kept = VrmMixup().kept(two.x)
    target = torch.nn.functional.one_hot(two.y, digits8.spec.classes).float()
    soft = kept * target + (1 - kept) * target.flip(0)
    assert torch.allclose(loss, cross_entropy(model(kept * two.x + (1 - kept) * two.x.flip(0)), soft), atol=1e-6)


def test_a_pasted_box_has_the_share_that_is_not_kept():
    torch.manual_seed(0)
    x = torch.zeros(1, 3, 32, 32)
    for _ in range(20):
        kept = VrmMixup(mode="cutmix").kept(x)
        rows, columns = (kept[0, 0] == 0).any(1), (kept[0, 0] == 0).any(0)
        assert kept.shape == (1, 1, 32, 32) and set(kept.unique().tolist()) <= {0.0, 1.0}
        assert int((kept == 0).sum()) == int(rows.sum()) * int(columns.sum())
    even = VrmMixup(mode="cutmix", alpha=1e6).kept(x)
    assert float(even.mean()) == pytest.approx(0.5, abs=0.03)


def test_noise_alone_is_the_vicinity_of_one(client, digits8):
    found = inverted(client, digits8.spec, VrmMixup(mode="gaussian", sigma=0.1))
    assert mse(found, client[1].x) == pytest.approx(0.01, rel=0.5)


def test_records_are_mixed_behind_their_encoder():
    columns = (Column("kind", ("a", "b", "c")), Column("size"))
    spec = InputSpec("tabular", (2,), 2, columns)
    torch.manual_seed(0)
    model = Mlp(spec=spec, hidden=(4,))
    batch = Batch(model, torch.tensor([[0.0, 1.0], [2.0, 3.0]]), torch.tensor([0, 1]))
    seen = []
    handle = model.stages[0].register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    VrmMixup(alpha=1e6).loss(batch)
    handle.remove()
    assert torch.allclose(seen[0], torch.tensor([0.5, 0.0, 0.5, 2.0]).expand(2, 4), atol=1e-2)
    assert model(batch.x).shape == (2, 2)  # the hook is gone
    with pytest.raises(UserError, match=r"defense\.mode"):
        VrmMixup(mode="cutmix").loss(batch)


def test_without_mixing_training_is_bit_by_bit_as_it_was_and_with_it_the_model_learns(train_under, accuracy_of):
    """Measured: accuracy 0.991 with mixup, 0.991 without."""

    def trained(defense, epochs):
        return train_under(defense, Mlp, Recipe(epochs=epochs, lr=2e-3), hidden=(64, 32))

    assert torch.equal(trained(VrmMixup(alpha=0.0), 1).head.weight, trained(Defense(), 1).head.weight)
    assert torch.equal(trained(VrmMixup(mode="gaussian"), 1).head.weight, trained(Defense(), 1).head.weight)
    mixed, plain = (accuracy_of(trained(one, 15)) for one in (VrmMixup(), Defense()))
    assert mixed >= plain - 0.03


def test_a_cells_client_has_its_partner_from_its_own_share(make_cell):
    observed = make_cell("attack=dlg", "defense=vrm_mixup", "setting.clients=2").observation
    plain = make_cell("attack=dlg", "setting.clients=2").observation
    name = next(iter(plain.view.messages[0]))
    assert not torch.equal(observed.view.messages[0][name], plain.view.messages[0][name])
    assert torch.equal(observed.secret.x, plain.secret.x)
