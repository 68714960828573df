"""``budget.gradients``: attacks whose length is scaled to equal numbers of victim gradients."""

import pytest
import torch

from mibench.errors import UserError
from mibench.leaderboard.shards import read_shard
from mibench.running.pace import gradients_of

SMALL = ("dataset.size=8", "target.recipe.epochs=1", "target.recipe.min_steps=0", "evaluation.models=[mlp]",
         "control=none")  # fmt: skip


@pytest.fixture
def small_cell(make_cell, tmp_path):
    return lambda *words: make_cell(*SMALL, *words, folder=tmp_path)


def test_an_attack_takes_as_many_gradients_as_the_budget_allows(small_cell):
    cell = small_cell("attack=mi_face", "budget.gradients=51")
    assert cell.scaled == {"iterations": 11}, "with four samples: one gradient before the first step, and 11 after"
    assert gradients_of(cell.result) == 48
    for steps, within in ((11, True), (12, False)):
        other = small_cell("attack=mi_face", f"attack.iterations={steps}")
        assert (gradients_of(other.result) <= 51) is within
        assert torch.equal(other.result.reconstruction.values, cell.result.reconstruction.values) is within
    (row,) = cell.length_scores()
    assert (row.metric, row.variant, row.value) == ("length", "attack.iterations", 11)
    rows = read_shard(cell.run().shard)
    assert set(rows["cell_id"]) == {cell.plan.cell_id} and set(rows["gradient_evals"]) == {48}
    assert "budget.gradients=51: attack.iterations=11 (before: attack.iterations=100); it took 48" in rows["notes"][0]


def test_a_budget_above_the_attacks_own_length_prolongs_it(small_cell):
    cell = small_cell("attack=split_rmle", "attack.iterations=3", "budget.gradients=30")
    assert cell.scaled == {"iterations": 15} and gradients_of(cell.result) == 30


def test_the_control_is_attacked_for_as_long(small_cell):
    cell = small_cell("attack=mi_face", "budget.gradients=51")
    victim = cell.setting.train(cell.scene(control=True), cell.split.held_out or cell.split.private, "other")
    assert gradients_of(cell.attack(victim, cell.split.private, "control attack")) == 48


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["attack=nearest_public"], "takes no gradient of the victim"),
        (["attack=analytic_linear", "target=mlp"], "takes no gradient of the victim"),
    ],
)
def test_an_attack_without_gradients_is_left_as_it_is_and_says_so(words, why, small_cell):
    cell, plain = small_cell(*words, "budget.gradients=5"), small_cell(*words)
    assert cell.scaled == {} and cell.paced is cell and cell.length_scores() == []
    assert any(why in note for note in cell.pace_notes()) and plain.pace_notes() == []
    assert torch.equal(cell.result.reconstruction.values, plain.result.reconstruction.values)


def test_a_budget_below_one_step_is_refused(small_cell):
    with pytest.raises(UserError, match=r"budget\.gradients=7 is too small: one step of attack 'mi_face' takes 8 "):
        _ = small_cell("attack=mi_face", "budget.gradients=7").result


def test_the_check_of_convergence_doubles_the_scaled_length(small_cell):
    cell = small_cell("attack=split_rmle", "budget.gradients=20", "convergence=check", "metric=[psnr]")
    assert cell.scaled == {"iterations": 10} and cell.convergence == "not converged"
    once, twice = (small_cell("attack=split_rmle", f"attack.iterations={n}", "metric=[psnr]") for n in (10, 20))
    values = [next(one.value for one in other.scores() if one.metric == "psnr") for other in (once, twice)]
    assert cell.checked.moved == pytest.approx(values[1] - values[0])
