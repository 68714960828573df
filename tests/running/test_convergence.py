import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mibench.leaderboard.shards import read_shard
from mibench.metrics.base import Measurement
from mibench.metrics.psnr import Psnr
from mibench.running.convergence import converged, headline
from mibench.running.standing import finished

VALUES = np.array([1.0, 2.0, 3.0, 6.0])
ERROR = math.sqrt(14 / 3) / 2  # of these: their sum of squares is 14, and there are four


@pytest.mark.parametrize("sign", [1, -1])
def test_a_move_of_less_than_one_standard_error_is_converged(sign):
    under, over = (converged(VALUES, VALUES + sign * share * ERROR, "dB") for share in (0.99, 1.01))
    assert (under.verdict, over.verdict) == ("converged", "not converged")
    assert over.error == pytest.approx(ERROR) and over.moved == pytest.approx(sign * 1.01 * ERROR) and over.n == 4
    moved, error = over.scores()
    assert (moved.metric, moved.variant, moved.value, moved.unit) == ("convergence", "not converged", over.moved, "dB")
    assert (error.variant, error.value, error.n) == ("standard error", over.error, 4)


def test_the_error_is_that_of_the_attack_at_once_its_length():
    assert converged(VALUES, 100 * VALUES).error == pytest.approx(ERROR)


def test_values_that_do_not_differ_are_converged_only_where_nothing_moves():
    same = np.ones(3)
    assert (converged(same, same).verdict, converged(same, same + 1e-6).verdict) == ("converged", "not converged")


@pytest.mark.parametrize("values", [[1.0], [1.0, math.nan], [1.0, math.inf]])
def test_without_two_finite_values_there_is_no_verdict(values):
    found = converged(np.array(values), np.array(values))
    assert found.verdict == "not measured"
    assert [(one.status, one.variant) for one in found.scores()] == [("skipped", "not measured")]


def test_the_headline_number_is_that_of_the_task_and_of_one_judge_where_there_is_no_vote():
    def measured(variant, evaluator, value):
        return Measurement(torch.tensor([value, value + 2]), torch.tensor([0, 0]), variant, evaluator)

    class Accuracy(Psnr):
        card = SimpleNamespace(name="attack_accuracy", unit="share")
        found = (measured("top5", "vote", 9.0), measured("top1", "mlp", 1.0), measured("top1", "vote", 2.0))

        def measure(self, result, truth):
            return self.found

    truth, metric = SimpleNamespace(unknown=""), Accuracy()
    both = headline([metric], "class", "image", None, truth)
    assert (both.values.tolist(), both.unit) == ([3.0], "share")
    metric.found = metric.found[:2]
    assert headline([metric], "class", "image", None, truth).values.tolist() == [2.0]
    assert headline([metric], "instance", "image", None, truth) is None, "which has another headline"
    assert headline([metric], "class", "image", None, SimpleNamespace(unknown="Nobody knows.")) is None


SMALL = ("dataset.size=8", "target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.models=[mlp]",
         "attack=split_rmle", "budget.targets=4", "metric=[psnr]")  # fmt: skip


@pytest.fixture
def small_cell(make_cell, tmp_path):
    return lambda *words: make_cell(*SMALL, *words, folder=tmp_path)


def test_a_search_that_goes_on_moving_is_told_from_one_that_has_settled(small_cell):
    early, late = (small_cell("convergence=check", f"attack.iterations={steps}") for steps in (10, 320))
    assert (early.convergence, late.convergence) == ("not converged", "converged")
    once, twice = (small_cell(f"attack.iterations={steps}") for steps in (10, 20))
    values = [next(one.value for one in cell.scores() if one.metric == "psnr") for cell in (once, twice)]
    assert early.checked.moved == pytest.approx(values[1] - values[0])
    made = once.result.seconds, twice.result.seconds
    stored = early.result.seconds, early.with_plan(twice.plan).result.seconds
    assert made == stored, "both reconstructions are those of the cells with these options"


def test_a_measured_cell_is_run_again_for_the_check_and_then_stands(small_cell):
    words = ["attack.iterations=5"]
    plain, checked = small_cell(*words), small_cell(*words, "convergence=check")
    assert plain.plan.cell_id == checked.plan.cell_id and plain.convergence == "not checked"
    shard = plain.run().shard
    assert not (read_shard(shard)["metric"] == "convergence").any()
    assert finished(plain.plan) == shard and finished(checked.plan) is None
    checked.run()
    rows = read_shard(shard)
    assert set(rows[rows["metric"] == "convergence"]["variant"]) == {checked.convergence, "standard error"}
    assert finished(checked.plan) == finished(plain.plan) == shard


def test_an_attack_without_a_search_has_no_verdict_but_a_reason(make_cell):
    cell = make_cell(*SMALL[:4], "attack=analytic_linear", "target=mlp", "convergence=check")
    assert cell.convergence == "no search"
    (row,) = cell.length_scores()
    assert (row.metric, row.variant, row.status) == ("convergence", "no search", "skipped") and row.reason


def test_a_cell_without_its_headline_number_says_so(small_cell):
    cell = small_cell("convergence=check", "attack.iterations=5", "metric=[mse]")
    assert cell.convergence == "not measured" and "headline" in cell.length_scores()[0].reason
