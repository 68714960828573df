import pytest
import torch
from scipy.stats import chisquare

from mibench.access import Ledger, Round
from mibench.defenses.sec_agg import MODULUS, SecAgg, neighbours_of, unmasked
from mibench.errors import UserError
from mibench.settings.base import Scene
from mibench.settings.federated import Federated
from mibench.settings.victim import Blueprint
from mibench.targets.lenet import LeNet
from mibench.training import Recipe

SIZE, CLIENTS = 20_000, 10


@pytest.fixture
def updates():
    draws = torch.Generator().manual_seed(0)
    return [
        {"a": torch.randn(SIZE // 2, generator=draws), "b": torch.randn(100, SIZE // 200, generator=draws)}
        for _ in range(CLIENTS)
    ]


def flat(update):
    return torch.cat([value.flatten() for value in update.values()])


def round_of(dropped=()):
    return Round(3, CLIENTS, seed=7, dropped=frozenset(dropped))


def test_the_masks_cancel_exactly_in_the_ring(updates):
    defense, this = SecAgg(), round_of()
    encoded = [defense.encoded(update) for update in updates]
    sent = {client: defense.masked(encoded[client], client, this) for client in range(CLIENTS)}
    assert torch.equal(unmasked(sent, this, defense.neighbours), sum(encoded) % MODULUS)
    assert not torch.equal(sum(sent.values()) % MODULUS, sum(encoded) % MODULUS), "own masks are there"


def test_one_message_is_the_mean_up_to_the_rounding(updates):
    (message,) = SecAgg().protocol(updates, round_of())
    mean = torch.stack([flat(update) for update in updates]).mean(0)
    assert (message.senders, message.weight) == (CLIENTS, CLIENTS)
    assert (flat(message.opened()) - mean).abs().max() <= 0.5 / 65536 + 1e-6
    assert message.opened()["b"].shape == (100, SIZE // 200)


@pytest.mark.parametrize("dropped", [(0,), (3, 4), (1, 5, 9)])
def test_who_drops_out_is_taken_out_of_the_sum(updates, dropped):
    this = round_of(dropped)
    there = [updates[client] for client in this.present]
    (message,) = SecAgg().protocol(there, this)
    assert message.senders == CLIENTS - len(dropped)
    mean = torch.stack([flat(update) for update in there]).mean(0)
    assert (flat(message.opened()) - mean).abs().max() <= 0.5 / 65536 + 1e-6


def test_a_client_has_keys_with_its_neighbours_in_a_ring():
    assert neighbours_of(0, 6, 1) == [1, 5] and neighbours_of(4, 6, 2) == [0, 2, 3, 5]


def test_what_a_client_sends_says_nothing_of_its_update(updates):
    defense, this = SecAgg(), round_of()
    sent = defense.masked(defense.encoded(updates[0]), 0, this)
    assert chisquare(torch.histc(sent.double(), 64, 0, MODULUS).numpy()).pvalue > 1e-4
    assert abs(torch.corrcoef(torch.stack([sent.double(), flat(updates[0]).double()]))[0, 1]) < 0.03
    another = defense.masked(defense.encoded(updates[0]), 0, Round(4, CLIENTS, seed=8))
    assert (sent == another).double().mean() < 0.01, "every round has keys of its own"


def test_each_kind_of_mask_alone_hides_a_client(updates, monkeypatch):
    import mibench.defenses.sec_agg as module

    defense, this = SecAgg(), round_of()
    encoded = defense.encoded(updates[0])
    for name in ("own_mask", "pair_mask"):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, lambda *_: torch.zeros(SIZE, dtype=torch.long))
            sent = defense.masked(encoded, 0, this)
            assert (sent == encoded).double().mean() < 0.01
            another = defense.masked(encoded, 0, Round(4, CLIENTS, seed=8))
            assert (sent == another).double().mean() < 0.01, "every round has masks of its own"


def test_entries_beyond_the_bound_are_clipped_and_a_sum_that_would_wrap_is_refused(updates):
    updates[0]["a"][0] = 100.0
    (message,) = SecAgg(bound=4.0).protocol(updates[:1] * CLIENTS, round_of())
    assert message.opened()["a"][0] == 4.0
    with pytest.raises(UserError, match=r"defense\.bound=8000 and defense\.scale=65536"):
        SecAgg(bound=8000.0).protocol(updates, round_of())


@pytest.fixture
def scene(digits8, workshop):
    blueprint = Blueprint("lenet", lambda spec: LeNet(spec=spec), Recipe(), {"target": "lenet"})
    return Scene(split=digits8, blueprint=blueprint, defense=SecAgg(), defense_key={}, workshop=workshop, seed=0)


def test_the_server_sees_one_sum_a_round_of_the_same_model(scene):
    setting = Federated(clients=6, batch_size=2, dropout=0.34)
    victim = setting.train(scene, scene.split.private, "victim")
    seen = setting.observe(scene, victim, scene.split.private, "gradients", 3, Ledger())
    view, secret = seen.view, seen.secret
    assert (len(view.messages), view.senders, view.batch_size, len(secret)) == (3, 4, 8, 24)
    assert setting.inputs_behind(scene.split, SecAgg.card) == 8
    assert len(secret.x.flatten(1).unique(dim=0)) == 24, "every round has batches of its own"
    for number, message in enumerate(view.messages):
        rows = slice(8 * number, 8 * number + 8)
        loss = torch.nn.functional.cross_entropy(victim.module(secret.x[rows]), secret.y[rows])
        expected = dict(zip(message, torch.autograd.grad(loss, list(victim.module.parameters())), strict=True))
        for name, value in message.items():
            assert (value - expected[name]).abs().max() < 2 / 65536


def test_it_is_refused_where_several_clients_already_are_one_message(scene):
    setting = Federated(clients=6, clients_per_message=2)
    victim = setting.train(scene, scene.split.private, "victim")
    with pytest.raises(UserError, match="clients_per_message=1"):
        setting.observe(scene, victim, scene.split.private, "gradients", 1, Ledger())


def test_a_cell_says_how_many_sent(make_cell):
    cell = make_cell("attack=dlg", "defense=sec_agg", "setting.clients=3", "attack.iterations=2", "attack.restarts=1")
    assert cell.plan.cards.batch_size == 3
    dropped = make_cell("attack=dlg", "defense=sec_agg", "setting.clients=6", "setting.dropout=0.34").plan
    assert dropped.cards.batch_size == 4, "two of six clients are behind no message"
    rows = cell.rows(cell.scores())
    assert {row["senders"] for row in rows} == {3.0} and "points:3" in rows[0]["knowledge"]
    plain = make_cell("attack=dlg", "attack.iterations=2", "attack.restarts=1")
    assert {row["senders"] for row in plain.rows(plain.scores())} == {1.0}


def test_a_reader_is_told_whose_mean_a_message_is():
    (said,) = Federated(clients=6, batch_size=2, dropout=0.5).described(SecAgg.card, batch_norm=False)
    assert "one gradient of 6 examples, the mean of 3 clients" in said
