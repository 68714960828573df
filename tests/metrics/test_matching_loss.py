import pytest
import torch

from mibench.errors import NotMeasurableError
from mibench.leaderboard.scoring import score
from mibench.metrics.matching_loss import MatchingLoss
from mibench.tasks.base import Reconstruction
from mibench.tasks.instance import InstanceTruth


def truth(unknown=""):
    return InstanceTruth(
        x=torch.zeros(4, 1, 2, 2), y=torch.zeros(4, dtype=torch.long), target=torch.tensor([0, 0, 1, 1]),
        correct=torch.zeros(0), chance=0.5, unknown=unknown,
    )  # fmt: skip


def answer(loss):
    return Reconstruction(torch.zeros(4, 1, 2, 2), torch.tensor([0, 0, 1, 1]), loss=loss)


def test_it_is_the_mean_over_messages_and_leaves_out_what_is_not_finite():
    (one,) = score(MatchingLoss(), answer(torch.tensor([1.0, 1.0, 3.0, 3.0])), None, truth())
    assert one.value == 2.0 and one.higher_is_leakier is None
    (one,) = score(MatchingLoss(), answer(torch.tensor([1.0, 1.0, torch.inf, torch.inf])), None, truth())
    assert one.value == 1.0


def test_it_needs_no_truth_and_others_do():
    from mibench.metrics.mse import Mse

    result = answer(torch.ones(4))
    assert score(MatchingLoss(), result, None, truth("nobody knows"))[0].status == "ok"
    (other,) = score(Mse(), result, None, truth("nobody knows"))
    assert (other.status, other.reason) == ("skipped", "nobody knows")


def test_an_attack_without_objective_has_none():
    with pytest.raises(NotMeasurableError, match="no objective"):
        MatchingLoss().measure(answer(None), truth())
