import pytest
import torch

from mibench.defenses.rounding import Rounding
from mibench.errors import UserError
from mibench.settings.victim import Victim

STEPS = [0.001, 0.01, 0.05, 0.1]


@pytest.fixture
def scores():
    logits = 3 * torch.randn(5000, 5, generator=torch.Generator().manual_seed(0))
    return logits.softmax(1)


def round_log_probabilities(scores, step):
    """A stub: the card's pitfall."""
    return (scores.log() / step).round().mul(step).exp()


def truncate(scores, step):
    """A stub: rounds down, and leaves ties as they fall."""
    return (scores / step).floor() * step


def faults(answer, scores, step):
    """What of the definition an answer breaks."""
    near = (answer - scores).abs() <= step / 2 + 1e-6
    top = scores.argmax(1)
    repaired = torch.zeros_like(near).scatter_(1, top[:, None], True) & ((answer - scores).abs() <= 1.5 * step + 1e-6)
    ties = (answer == answer.max(1, keepdim=True).values).sum(1) > 1
    found = {
        "far": not bool((near | repaired).all()),
        "values": len(answer.unique()) > round(1 / step) + 1,
        "label": not torch.equal(answer.argmax(1), top),
        "ties": bool(ties.any()),
    }
    return {fault for fault, there in found.items() if there}


@pytest.mark.parametrize("step", STEPS)
def test_answers_are_the_nearest_multiples_and_keep_the_label(scores, step):
    assert not faults(Rounding(step=step).output(scores), scores, step)


def test_stubs_are_found(scores):
    assert "values" in faults(round_log_probabilities(scores, 0.05), scores, 0.05)
    assert {"far", "ties"} <= faults(truncate(scores, 0.05), scores, 0.05)


def test_finite_differences_vanish(scores):
    """Measured: 99.99 % of the answers do not move; of the undefended scores 0.0 %."""
    logits = scores.double().log()
    moved = (logits + 1e-6 * torch.tensor([1.0, 0, 0, 0, 0])).softmax(1)

    def still(output):
        return float((output(logits.softmax(1)) == output(moved)).all(1).double().mean())

    assert still(Rounding(step=0.05).output) >= 0.99
    assert still(lambda p: p) < 0.01


def test_a_tie_goes_to_the_class_that_was_ahead():
    answer = Rounding(step=0.1).output(torch.tensor([[0.24, 0.26, 0.25, 0.25], [0.01, 0.49, 0.50, 0.0]]))
    assert answer.argmax(1).tolist() == [1, 2]
    assert torch.allclose(answer[1], torch.tensor([0.0, 0.5, 0.6, 0.0]))


def test_no_answer_is_above_one():
    """0.9 is rounded to three steps of 0.35."""
    assert Rounding(step=0.35).output(torch.tensor([[0.9, 0.1, 0.0]])).tolist() == [[1.0, 0.0, 0.0]]


def test_many_small_scores_still_have_a_label():
    scores = torch.full((1, 100), 0.0099)
    scores[0, 7] = 1 - 99 * 0.0099
    answer = Rounding(step=0.1).output(scores)
    assert answer.argmax(1).tolist() == [7]


def test_renormalised_answers_sum_to_one(scores):
    assert torch.allclose(Rounding(step=0.1, renormalise=True).output(scores).sum(1), torch.ones(len(scores)))
    assert not torch.allclose(Rounding(step=0.1).output(scores).sum(1), torch.ones(len(scores)))


def test_step_zero_is_the_identity(scores):
    assert Rounding(step=0).output(scores) is scores


def test_a_step_beyond_one_is_refused():
    with pytest.raises(UserError, match=r"defense\.step"):
        Rounding(step=2)


def test_the_service_answers_rounded_scores_and_the_white_box_does_not(trained_cnn, digits8, white_box):
    x = digits8.public.x[:64]
    answer = Victim(trained_cnn, Rounding(step=0.1), digits8.spec, {}).predict_proba(x)
    raw = white_box(trained_cnn, digits8).narrow().query(x)
    assert torch.allclose(answer, (answer / 0.1).round() * 0.1)
    assert not torch.allclose(raw, (raw / 0.1).round() * 0.1)
