import pytest
import torch

from mibench.data import Examples
from mibench.defenses.base import Client
from mibench.defenses.dgc import Dgc, largest
from mibench.errors import UserError


def gradients(rounds, n=10_000):
    """One client's gradients: heavy-tailed noise, and one small entry that never changes."""
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(rounds):
        weight = torch.randn(n, dtype=torch.float64, generator=generator) ** 3
        weight[17] = 0.5
        made.append({"weight": weight.reshape(100, n // 100), "bias": torch.ones(10, dtype=torch.float64)})
    return made


def run(defense, rounds, state):
    """What one client sends in every round, with its state kept in ``state``."""
    empty = Examples(torch.zeros(0), torch.zeros(0, dtype=torch.long))
    return [
        defense.update(gradient, Client(0, number, 4, None, empty, seed=number, state=state))
        for number, gradient in enumerate(gradients(rounds))
    ]


class StatelessTopK(Dgc):
    """A stub: forgets what it did not send."""

    def update(self, gradient, client):
        client.state.clear()
        return super().update(gradient, client)


def lost(defense, rounds=30):
    """The largest entry of all gradients that was neither sent nor kept (without momentum it must be zero)."""
    state = {}
    sent = sum(update["weight"] for update in run(defense, rounds, state))
    total = sum(gradient["weight"] for gradient in gradients(rounds))
    return float((sent + state["residual.weight"] - total).abs().max())


def test_a_sampled_threshold_lets_none_but_the_largest_through():
    """Where more pass than are wanted, the largest of them are chosen; that happens in some of twenty samples."""
    full = 0
    for seed in range(20):
        values = torch.randn(5000, generator=torch.Generator().manual_seed(seed))
        mask = largest(values, 0.02, 0.05, seed)
        assert float(values[mask].abs().min()) >= float(values[~mask].abs().max()) and int(mask.sum()) <= 100
        full += int(mask.sum()) == 100
    assert 3 <= full <= 17


def test_exactly_the_share_is_sent_where_the_threshold_sees_all():
    sent = run(Dgc(sample=1.0), 5, {})
    assert [int((update["weight"] != 0).sum()) for update in sent] == [10] * 5


def test_a_sampled_threshold_sends_nearly_the_share():
    sent = run(Dgc(ratio=0.01), 20, {})
    assert all(80 <= int((update["weight"] != 0).sum()) <= 100 for update in sent)


def test_what_is_sent_is_the_largest():
    gradient = gradients(1)[0]["weight"].abs().flatten()
    (sent,) = run(Dgc(sample=1.0), 1, {})
    assert torch.equal(torch.nonzero(sent["weight"].flatten()).flatten(), gradient.topk(10).indices.sort().values)


def test_nothing_is_lost_without_momentum():
    assert lost(Dgc(momentum=0.0)) < 1e-9
    assert lost(StatelessTopK(momentum=0.0)) > 1


def test_a_small_constant_entry_is_sent_in_the_end():
    """Entry 17 is always 0.5; the largest of 10,000 are above 30."""

    def times_sent(defense):
        return sum(bool(update["weight"].flatten()[17] != 0) for update in run(defense, 100, {}))

    assert times_sent(Dgc(ratio=0.01)) > 0
    assert times_sent(StatelessTopK(ratio=0.01)) == 0


def test_the_momentum_is_cleared_where_it_was_sent():
    def kept(defense):
        state = {}
        sent = run(defense, 3, state)[-1]["weight"] != 0
        return state["momentum.weight"][sent]

    assert bool((kept(Dgc()) == 0).all())
    assert bool((kept(Dgc(masking=False)) != 0).all())


def test_momentum_correction_accumulates_velocity():
    """Two rounds of gradient 1, none sent: u = 1, 1.9 and v = 1, 2.9; with Nesterov u = 0.9, 1.71 and v = 1.9, 4.61."""
    ones = {"weight": torch.ones(10, 1000)}
    ones["weight"][0, 0] = 1e6  # the only entry that is sent
    for nesterov, expected in ((False, 2.9), (True, 4.61)):
        state = {}
        defense = Dgc(ratio=1e-4, sample=1.0, nesterov=nesterov)
        for number in range(2):
            defense.update(ones, Client(0, number, 4, None, None, seed=0, state=state))
        assert state["residual.weight"][5, 5].item() == pytest.approx(expected)


def test_vectors_are_sent_whole():
    assert all(torch.equal(update["bias"], torch.ones(10).double()) for update in run(Dgc(), 3, {}))


def test_the_whole_share_is_the_identity():
    assert all(
        torch.equal(update["weight"], gradient["weight"])
        for update, gradient in zip(run(Dgc(ratio=1.0), 4, {}), gradients(4), strict=True)
    )


def test_the_warm_up_falls_to_the_share():
    counts = [int((update["weight"] != 0).sum()) for update in run(Dgc(sample=1.0, warmup=2), 4, {})]
    assert counts == pytest.approx([1000, 100, 10, 10], abs=1)


def test_local_clipping_shrinks_with_the_number_of_clients():
    (sent,) = run(Dgc(ratio=1.0, clip=3.0), 1, {})  # four clients
    assert torch.stack([value.norm() for value in sent.values()]).norm().item() == pytest.approx(1.5)


@pytest.mark.parametrize(("option", "value"), [("ratio", 0), ("momentum", 1.0), ("warmup", -1), ("clip", 0.0)])
def test_impossible_options_are_refused(option, value):
    with pytest.raises(UserError, match=rf"defense\.{option}"):
        Dgc(**{option: value})


def test_the_attacked_round_sees_the_state_of_the_rounds_before(make_cell):
    """The server sees sparse messages, and what the clients kept comes out of the store with the victim."""
    cell = make_cell("attack=dlg", "defense=dgc", "defense.ratio=0.01", "setting.rounds=3", "setting.clients=2")
    message = cell.observation.view.messages[0]
    matrices = [value for value in message.values() if value.dim() > 1]
    assert all(0 < int((value != 0).sum()) <= value.numel() * 0.01 + 1 for value in matrices)
    assert set(cell.victim.states) == {0, 1}
    assert any(bool((value != 0).any()) for name, value in cell.victim.states[0].items() if name.startswith("residual"))
