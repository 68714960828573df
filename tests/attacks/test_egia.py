import dataclasses

import pytest
import torch

from mibench.attacks.egia import Egia
from mibench.attacks.inverting_gradients import InvertingGradients
from mibench.errors import IncompatibleCellError, NotGrantedError
from mibench.knowledge import Knowledge
from mibench.tasks.instance import InstanceGoal

SMALL = ["attack=egia", "dataset.size=8", "setting.clients=2"]
MLP = ("target=mlp", "target.hidden=[32]")


class Sealed:
    """A model that may not be touched."""

    def __getattr__(self, name):
        raise AssertionError(f"the eavesdropper read the server's model: {name}")


def sealed(view):
    return dataclasses.replace(view, model=Sealed())


def observe(make_cell, *overrides, target=MLP):
    """Returns what an eavesdropper sees in a real federated cell, and the batches behind it."""
    cell = make_cell(*SMALL, *target, *overrides)
    observation = cell.observe(cell.victim, cell.split.private)
    return observation.view, observation.secret


def attack(view, kind=Egia, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    return kind(**{"iterations": 200, "tv": 0.0, **options})(view, Knowledge(), goal, seed=0).reconstruction


def error(result, secret):
    return (result.values - secret.x).square().flatten(1).mean(1)


def drift(model, view):
    """Returns how far parameters are from the server's at the most."""
    return max(float((one - view.parameters[name]).detach().abs().max()) for name, one in model.named_parameters())


def test_the_black_box_reads_images_from_gradients_alone(make_cell):
    view, secret = observe(make_cell)
    result = attack(sealed(view), mode="black_box")
    assert float((result.values - secret.x).abs().max()) < 1e-4
    assert torch.equal(result.labels, secret.y)
    assert view.ledger.queries == 0
    noise = dataclasses.replace(
        view, messages=[{name: torch.randn_like(value) for name, value in one.items()} for one in view.messages]
    )
    assert float((attack(sealed(noise), mode="black_box").values - secret.x).abs().max()) > 0.1


def test_the_search_of_the_server_cannot_do_without_its_model(make_cell):
    """The stub: an attack that reads what an eavesdropper has not."""
    view, _ = observe(make_cell)
    with pytest.raises(AssertionError, match="read the server's model"):
        attack(sealed(view), InvertingGradients)


def test_the_black_box_gives_a_weighted_mean_of_a_batch(make_cell):
    view, secret = observe(make_cell, "setting.batch_size=2")
    result = attack(sealed(view), mode="black_box").values.flatten(1)
    assert torch.equal(result[0], result[1])
    weights = torch.linalg.lstsq(secret.x[:2].flatten(1).T, result[0][:, None]).solution
    torch.testing.assert_close(float(weights.sum()), 1.0, atol=1e-3, rtol=0)
    torch.testing.assert_close((weights * secret.x[:2].flatten(1)).sum(0), result[0], atol=1e-3, rtol=0)


def test_the_black_box_refuses_a_convolution(make_cell):
    view, _ = observe(make_cell, target=["target=lenet"])
    with pytest.raises(IncompatibleCellError, match=r"choose target=mlp, or attack\.mode=grey_box"):
        attack(sealed(view), mode="black_box")


@pytest.mark.parametrize("more", [[], ["setting.batch_size=2", "setting.local_batch_size=1", "setting.local_lr=0.1"]])
def test_the_grey_box_rebuilds_the_servers_model_from_all_uploads(make_cell, more):
    view, _ = observe(make_cell, "setting.rounds=3", *more)
    assert drift(Egia().rebuilt(sealed(view)).model, view) < 1e-6
    first = view.transcript()
    assert drift(first.start, view) > 1e-3  # the stubs: nothing heard, and one client of two
    one = dataclasses.replace(first, rounds=[sent[:1] for sent in first.rounds])
    assert drift(Egia().rebuilt(dataclasses.replace(sealed(view), transcript=lambda: one)).model, view) > 1e-3


def test_the_grey_box_finds_images_with_the_model_it_rebuilt(make_cell):
    view, secret = observe(make_cell, "setting.rounds=3")
    result = attack(sealed(view))
    assert float(error(result, secret).max()) < 1e-4
    assert torch.equal(result.labels, secret.y)
    assert view.ledger.queries > 0
    assert float(error(attack(sealed(view), start="unknown", iterations=60), secret).min()) > 1e-2


def test_in_the_first_round_there_is_nothing_to_rebuild(make_cell):
    view, _ = observe(make_cell)
    assert drift(Egia().rebuilt(sealed(view)).model, view) == 0


def test_an_attacker_who_did_not_listen_is_told_so(make_cell):
    view, _ = observe(make_cell)
    with pytest.raises(NotGrantedError, match="uploads of all earlier rounds"):
        attack(dataclasses.replace(view, transcript=None))
