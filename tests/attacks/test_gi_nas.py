import copy

import pytest
import torch

from mibench.attacks.gi_nas import GiNas
from mibench.errors import UserError
from mibench.knowledge import Knowledge
from mibench.targets.lenet import LeNet
from mibench.tasks.instance import InstanceGoal


class ForgetfulSearch(GiNas):
    """A stub whose winner starts from weights other than those that were scored."""

    built = 0

    def candidate(self, view, restart, number):
        self.built += 1
        return super().candidate(view, restart, number + 1000 * self.built)


def attack(view, kind=GiNas, seed=0, **options):
    goal = InstanceGoal(len(view.messages), view.batch_size)
    options = {"num_candidates": 5, "channels": 16, "iterations": 60, **options}
    return kind(**options)(view, Knowledge(), goal, seed=seed).reconstruction


@pytest.fixture
def watched(monkeypatch):
    """What was met on the way: ``scored`` (a network, its weights before, its noise) and ``scores`` by phase."""
    met = {"scored": [], "initialise": [], "optimise": [], "best": [], "noise": []}
    apart, candidate, search = GiNas.apart, GiNas.candidate, GiNas.search

    def watch_apart(self, view, *given):
        value = apart(self, view, *given)
        met[view.ledger.phase].append(value.detach())
        return value

    def watch_candidate(self, *given):
        network = candidate(self, *given)
        met["scored"].append((network, copy.deepcopy(network.state_dict())))
        return network

    def watch_search(self, view, labels, sent, u, found):
        met["noise"].append(u)
        met["best"].append(search(self, view, labels, sent, u, found))
        return met["best"][-1]

    monkeypatch.setattr(GiNas, "apart", watch_apart)
    monkeypatch.setattr(GiNas, "candidate", watch_candidate)
    monkeypatch.setattr(GiNas, "search", watch_search)
    return met


def test_the_best_of_the_untrained_candidates_wins(watched, digits_view, gradient_distances):
    view, secret = digits_view(LeNet, 2)
    attack(view, num_candidates=30, iterations=1)
    scores = torch.stack(watched["initialise"])
    candidates = watched["scored"][:30]
    by_hand = torch.stack([
        gradient_distances(view, torch.cat([network(u).detach() for u in watched["noise"][0]]), secret.y)
        for network, _ in candidates
    ])  # fmt: skip
    torch.testing.assert_close(scores, by_hand, atol=1e-5, rtol=0)
    best = watched["best"][0]
    assert torch.equal(best.values[0], scores.argmin(0))
    assert bool((best.scores < scores.median(0).values - 1e-4).all())
    assert len(scores) == 30 and best.scores.tolist() == scores.min(0).values.tolist()
    for network, before in candidates:
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_the_weights_are_searched_from_those_that_were_scored(watched, digits_view):
    def starts(kind):
        for part in watched.values():
            part.clear()
        attack(digits_view(LeNet, 2)[0], kind, iterations=1)
        return torch.cat(watched["optimise"][::2]) - watched["best"][0].scores

    assert float(starts(GiNas).abs().max()) < 1e-5
    assert float(starts(ForgetfulSearch).abs().max()) > 1e-4


def test_a_searched_architecture_ends_lower_than_a_random_one(digits_view, gradient_distances):
    def ends(candidates):
        found = []
        for seed in range(5):
            view, secret = digits_view(LeNet, 2, seed=seed)
            result = attack(view, seed=seed, num_candidates=candidates, levels=1, iterations=15)
            found.append(gradient_distances(view, result.values, secret.y))
        return torch.cat(found)

    assert int((ends(30) <= ends(1)).sum()) >= 6


def test_the_image_comes_out_of_the_winner(digits_view, gain, gradient_distances):
    view, secret = digits_view(LeNet, 2)
    result = attack(view, iterations=120)
    assert torch.equal(result.labels, secret.y)
    assert float(gradient_distances(view, result.values, result.labels).max()) < 1e-4
    assert float(gain(result.values, secret).min()) > 4
    still = attack(view, lr=1e-9)
    assert float(gradient_distances(view, still.values, still.labels).min()) > 1e-3
    assert float(gain(still.values, secret).max()) < 0


def test_a_spent_budget_leaves_the_best_so_far(spend):
    result = spend(attack, 30)
    assert not torch.equal(result.values[0], result.values[1])


def test_channels_that_cannot_be_shuffled_are_refused():
    with pytest.raises(UserError, match=r"attack\.channels"):
        GiNas(channels=24)
