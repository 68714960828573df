"""One cell from the data to its rows."""

import dataclasses
import json
import math

import pandas as pd
import pytest
import torch

from mibench.errors import IncompatibleCellError, NotGrantedError, UserError
from mibench.knowledge import GRANTS
from mibench.leaderboard.rows import COLUMNS
from mibench.leaderboard.shards import read_shard
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell


def numbers(frame):
    return frame.drop(
        columns=["seconds", "training_seconds", "judge_seconds", "peak_memory_mb", "created_at", "git_commit"]
    )


#: What a generator of 16 channels learns digits from.
LARGER = (
    "dataset.size=16", "prior.width=16", "prior.batch_size=16", "evaluation.models=[mlp]", "target.recipe.epochs=8",
    "target.recipe.min_steps=80",
)  # fmt: skip

#: The evaluation model that is trained in a second.
ONE_JUDGE = ("evaluation.models=[mlp]",)

#: A cell of seconds whose images are worth nothing.
SHORT = (
    "attack=gmi", "attack.iterations=10", "prior.iterations=20", "evaluation.models=[mlp]", "prior.batch_size=16",
    "target.recipe.epochs=2", "target.recipe.min_steps=0",
)  # fmt: skip


@pytest.fixture(scope="module")
def gmi(make_cell):
    cell = make_cell("attack=gmi", "attack.iterations=120", "prior.iterations=100", *LARGER)
    return cell, cell.run()


def test_a_cell_leaves_rows_and_a_picture(gmi):
    cell, outcome = gmi
    frame = read_shard(outcome.shard)
    assert tuple(frame.columns) == COLUMNS
    assert set(frame["cell_id"]) == {cell.plan.cell_id} == {outcome.shard.stem}
    assert outcome.picture.stat().st_size > 1000
    accuracy = frame[(frame["metric"] == "attack_accuracy") & (frame["variant"] == "top1")]
    assert accuracy["value"].item() > accuracy["control"].item()
    assert accuracy["lift"].item() == pytest.approx(accuracy["value"].item() - accuracy["control"].item())
    assert frame["queries"].unique().tolist() == [120 * 4]
    assert frame["knowledge"].unique().tolist() == ["public,prior:wgan_gp"]
    assert json.loads(frame["config"].iloc[0])["attack"]["iterations"] == 120


def test_every_skipped_row_says_why(gmi):
    frame = read_shard(gmi[1].shard)
    skipped = frame[frame["status"] != "ok"]
    assert (skipped["reason"].str.len() > 20).all() and skipped["value"].isna().all()
    assert frame[frame["status"] == "ok"]["value"].notna().all()


def test_the_same_seed_gives_the_same_bits_in_a_store_of_its_own(make_cell, tmp_path):
    once, again = make_cell(*SHORT), make_cell(*SHORT, folder=tmp_path)
    assert once.plan.cell_id == again.plan.cell_id
    pd.testing.assert_frame_equal(*(numbers(read_shard(one.run().shard)) for one in (once, again)), check_exact=True)
    assert torch.equal(once.result.reconstruction.values, again.result.reconstruction.values)


def test_a_warm_cell_reports_the_cost_of_the_cold_one(gmi, make_cell):
    warm = make_cell("attack=gmi", "attack.iterations=120", "prior.iterations=100", *LARGER)
    assert warm.result.ledger == gmi[0].result.ledger
    assert warm.result.seconds == gmi[0].result.seconds
    assert 0 < warm.facts().training_seconds == gmi[0].facts().training_seconds


def test_another_seed_is_another_cell_of_the_same_group(make_cell):
    first, other = make_cell(*SHORT), make_cell(*SHORT, "seed=1")
    assert other.plan.group_id == first.plan.group_id
    assert other.plan.cell_id != first.plan.cell_id
    assert not torch.equal(other.result.reconstruction.values, first.result.reconstruction.values)


def test_metrics_machine_and_folders_do_not_change_what_a_cell_is():
    plain = plan_cell(compose(["device=cpu"])).cell_id
    assert plain == plan_cell(compose(["metric=[attack_accuracy]", "threads=1", "paths.store=elsewhere"])).cell_id
    assert plain != plan_cell(compose(["target.width=8"])).cell_id


def test_an_output_defense_shares_the_undefended_victim(make_cell):
    none = make_cell("attack=gmi", "defense=none")
    rounding_plan = plan_cell(compose(["attack=gmi", "defense=rounding", "budget=smoke"]))
    from mibench.running.cell import Cell

    rounded = Cell(rounding_plan)
    assert none.scene().defense_key == rounded.scene().defense_key == {}


def test_vacuous_and_incompatible_cells_are_refused_in_one_sentence(make_cell):
    with pytest.raises(IncompatibleCellError, match="Vacuous: defense 'rounding'"):
        make_cell("attack=gmi", "defense=rounding")
    with pytest.raises(IncompatibleCellError, match="Incompatible"):
        make_cell("attack=gmi", "setting=split")
    with pytest.raises(IncompatibleCellError, match="prior"):
        make_cell("attack=gmi", "prior=none")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("attack.iterations=many", "iterations"),
        ("target.recipe.lr=-1", "lr"),
        ("device=tpu", "device"),
        ("precision=float8", "precision"),
        ("metric=[psnr]", "psnr"),
        ("attack=gmi_", "gmi"),
    ],
)
def test_a_wrong_option_is_said_before_anything_is_trained(override, words, make_cell, tmp_path):
    from hydra.errors import HydraException

    with pytest.raises((UserError, HydraException), match=words):
        make_cell("attack=gmi", override, folder=tmp_path)
    assert not (tmp_path / "store").exists()


def test_an_attack_without_its_public_data_is_refused(make_cell, monkeypatch):
    cell = make_cell("attack=gmi")
    from dataclasses import replace

    cell.__dict__["split"] = replace(cell.split, public=None)
    with pytest.raises(NotGrantedError, match="needs public data"):
        _ = cell.knowledge


def test_a_grant_is_part_of_the_cells_that_use_it_alone(make_cell, monkeypatch):
    monkeypatch.setitem(GRANTS, "labels", dataclasses.replace(GRANTS["labels"], identity="use"))
    assert "labels" not in make_cell("attack=gmi").plan.identity["knowledge"]
    federated = make_cell("attack=dlg", "setting=federated", "target=lenet")
    assert "labels" in federated.plan.identity["knowledge"]


def test_a_spent_budget_gives_the_best_so_far(make_cell):
    cell = make_cell("attack=gmi", "query_budget=40", *ONE_JUDGE)
    assert "budget of 40 queries" in cell.result.stopped
    assert any(note.startswith("The attack ended early: The attack's budget of 40") for note in cell.notes)
    assert sum(cell.result.ledger["queries"].values()) == 40
    assert not bool(cell.result.reconstruction.missing.any())


def test_defense_facts_become_rows(make_cell):
    outcome = make_cell(
        "attack=mi_face", "defense=dp_sgd", "target.recipe.epochs=1", "target.recipe.min_steps=0", *ONE_JUDGE
    ).run()
    by_name = {one.metric: one for one in outcome.scores}
    assert by_name["epsilon"].value > 0 and "accountant" in by_name["epsilon"].variant
    assert math.isnan(by_name["epsilon"].control)


def test_a_cell_is_its_data_not_their_path(tmp_path):
    def cell_id(folder):
        return plan_cell(compose(["attack=mi_face", "dataset=image_folder", f"dataset.root={folder}"])).cell_id

    for name, content in (("here", b"one"), ("there", b"one"), ("other", b"two")):
        (tmp_path / name / "class").mkdir(parents=True)
        (tmp_path / name / "class" / "1.png").write_bytes(content)
    assert cell_id(tmp_path / "here") == cell_id(tmp_path / "there") != cell_id(tmp_path / "other")


def test_a_victim_near_chance_is_said_so(make_cell):
    notes = make_cell("attack=mi_face", "target.recipe.epochs=0", *ONE_JUDGE).run().notes
    assert any("near the" in note and "no merit of a defense" in note for note in notes)
