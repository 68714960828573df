import pytest
import torch

from mibench.defenses.top_k import TopK
from mibench.errors import UserError
from mibench.settings.victim import Victim


@pytest.fixture
def scores():
    logits = 3 * torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    return logits.softmax(1)


def at_threshold(scores, k):
    """A stub: keeps whatever is as large as the k-th entry, so that ties return more."""
    return scores * (scores >= scores.topk(k, 1).values[:, -1:])


def faults(answer, scores, k):
    """What of the definition an answer breaks."""
    largest = torch.zeros_like(scores).scatter(1, scores.topk(k, 1).indices, 1).bool()
    found = {
        "more": bool(((answer > 0).sum(1) > k).any()),
        "others": not torch.equal((answer > 0) & ~largest, torch.zeros_like(largest)),
        "sum": not torch.allclose(answer.sum(1), torch.ones(len(answer))),
        "label": not torch.equal(answer.argmax(1), scores.argmax(1)),
    }
    return {fault for fault, there in found.items() if there}


@pytest.mark.parametrize("k", [1, 3, 5])
def test_the_k_largest_are_answered_in_their_proportions(scores, k):
    answer = TopK(k=k).output(scores)
    assert not faults(answer, scores, k)
    kept = answer > 0
    assert torch.allclose((answer / scores)[kept], (1 / scores.topk(k, 1).values.sum(1))[:, None].expand(-1, 8)[kept])


def test_stubs_are_found(scores):
    tied = torch.full((1, 8), 0.125)
    assert {"more", "sum"} <= faults(at_threshold(torch.cat([scores, tied]), 3), torch.cat([scores, tied]), 3)
    assert "others" in faults(scores, scores, 3)


def test_ties_return_no_more_than_k_and_the_first_label():
    answer = TopK(k=3, renormalise=False).output(torch.full((2, 8), 0.125))
    assert (answer > 0).sum(1).tolist() == [3, 3] and answer.argmax(1).tolist() == [0, 0]


def test_the_mass_taken_off_is_spread_evenly(scores):
    answer = TopK(k=3, fill="uniform").output(scores)
    assert torch.allclose(answer.sum(1), torch.ones(len(answer))) and torch.equal(answer.argmax(1), scores.argmax(1))
    rest = answer.sort(1).values[:, :5]
    assert torch.allclose(rest, rest[:, :1].expand_as(rest))
    top = scores.topk(3, 1)
    assert torch.equal(answer.gather(1, top.indices), top.values)


def test_one_class_says_no_more_than_the_label(scores):
    assert torch.equal(TopK(k=1).output(scores).unique(), torch.tensor([0.0, 1.0]))


def test_all_classes_are_the_identity(scores):
    assert TopK(k=8).output(scores) is scores and TopK(k=100).output(scores) is scores


def test_the_victim_answers_truncated(trained_cnn, digits8):
    x = digits8.private.test.x
    answer = Victim(trained_cnn, TopK(k=2), digits8.spec, {}).predict_proba(x)
    assert not faults(answer, trained_cnn.predict_proba(x), 2)


def test_wrong_options_are_said_in_one_sentence():
    for options, said in (({"k": 0}, r"defense\.k"), ({"fill": "noise"}, r"defense\.fill")):
        with pytest.raises(UserError, match=said):
            TopK(**options)
