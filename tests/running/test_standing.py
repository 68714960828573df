"""One runner for the command line and for Python: claim, log, time limit, failed row and logger are alike."""

import contextlib
import logging
import os
import time

import pytest

import mibench
from mibench.card import TASKS
from mibench.cli.main import main
from mibench.errors import MibenchError
from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import read_shard, write_shard
from mibench.planning.composition import compose
from mibench.planning.plan import folder, plan_cell
from mibench.running import standing
from mibench.running.standing import (
    claim_of,
    finished,
    leave_row,
    log_of,
    picture_path,
    reason_logged,
    run_under_claim,
)
from mibench.tasks import get_task
from mibench.tasks.base import Task


@pytest.fixture
def words(tmp_path):
    return ["attack=mi_face", "attack.iterations=2", "dataset.size=8", "target.recipe.epochs=1",
            "target.recipe.min_steps=0", "budget=smoke", "device=cpu", "control=none", "evaluation.count=0",
            "metric=[target_accuracy]", f"paths.store={tmp_path}/store",
            f"paths.results={tmp_path}/results"]  # fmt: skip


@pytest.fixture
def broken(monkeypatch):
    monkeypatch.setattr(
        "mibench.attacks.mi_face.MiFace.reconstruct", lambda *args: (_ for _ in ()).throw(RuntimeError("out of luck"))
    )


def test_python_leaves_a_failed_row_a_log_and_the_same_sentence(words, broken, capsys):
    with pytest.raises(
        MibenchError, match=r"The cell failed \(RuntimeError: out of luck\); its row is .*, its log"
    ) as raised:
        mibench.run(words)
    assert isinstance(raised.value.__cause__, RuntimeError)
    plan = plan_cell(compose(words))
    rows = read_shard(finished(plan))
    assert list(rows["status"]) == ["failed"] and "out of luck" in rows["reason"].iloc[0]
    assert "Traceback" in log_of(plan).read_text()
    assert main([*words, "overwrite=failed"]) == 1
    assert str(raised.value) in capsys.readouterr().err


def test_python_leaves_a_claimed_cell_to_its_owner(words):
    plan = plan_cell(compose(words))
    with claim_of(plan):
        assert run_under_claim(plan).status == "elsewhere"
        with pytest.raises(MibenchError, match="run by another process"):
            mibench.run(words)
    assert finished(plan) is None


def test_python_keeps_to_the_time_limit_and_tells_the_logger(words, monkeypatch):
    told = []
    monkeypatch.setattr(
        "mibench.reporting.tracking.NoLogger.log", lambda self, plan, outcome: told.append(plan.cell_id)
    )
    rows = mibench.run(words)
    assert set(rows["status"]) == {"ok"} and told == [rows["cell_id"].iloc[0]]
    mibench.run(words)
    assert len(told) == 1, "a cell that stands is not told again"
    with pytest.raises(MibenchError, match="TimeLimitReached: the cell took longer than time_limit"):
        mibench.run([*words, "overwrite=always", "time_limit=0.01"])


def test_the_log_of_a_cell_is_written_from_python_too(words, caplog):
    caplog.set_level(logging.INFO, logger="mibench")
    mibench.run(words)
    assert "dataset   digits" in log_of(plan_cell(compose(words))).read_text()


def full(*_arguments, **_named):
    raise OSError(28, "No space left on device")


def test_a_picture_that_cannot_be_drawn_costs_a_warning_and_the_same_command_draws_it(words, monkeypatch, capsys):
    plan = plan_cell(compose(words))
    with monkeypatch.context() as patch:
        patch.setattr("mibench.running.sheet.draw_sheet", full)
        assert main(words) == 0
    assert "The picture was not drawn (No space left on device); the rows stand" in capsys.readouterr().err
    shard = finished(plan)
    before = shard.read_bytes()
    assert "ok" in set(read_shard(shard)["status"]) and not picture_path(plan).exists()
    assert main(words) == 0 and picture_path(plan).exists() and shard.read_bytes() == before
    picture_path(plan).unlink()
    picture_path(plan).parent.rmdir()
    picture_path(plan).parent.touch()
    assert main(words) == 0 and "The picture is missing and cannot be drawn" in capsys.readouterr().err
    assert main([*words, "overwrite=always"]) == 0, "something else lies where pictures belong"


def test_a_cell_that_fails_when_it_is_run_again_keeps_its_rows(words, monkeypatch, capsys):
    assert main(words) == 0
    plan = plan_cell(compose(words))
    before = finished(plan).read_bytes()
    monkeypatch.setattr("mibench.attacks.mi_face.MiFace.reconstruct", full)
    assert main([*words, "overwrite=always"]) == 1
    assert "the rows that it had before are kept in" in capsys.readouterr().err
    assert finished(plan).read_bytes() == before
    assert "No space left" in reason_logged(plan, 0) and not reason_logged(plan, time.time_ns())
    assert leave_row(plan, "skipped", "not now").read_bytes() == before


def test_a_cell_that_another_process_finished_is_not_run_again(words, monkeypatch):
    plan = plan_cell(compose(words))
    claim = standing.claim_of

    @contextlib.contextmanager
    def late(plan):
        with claim(plan):
            write_shard(folder(plan, "results"), plan.cell_id, [row_of(plan)])
            yield

    monkeypatch.setattr(standing, "claim_of", late)
    ended = run_under_claim(plan)
    assert ended.status == "stands" and read_shard(ended.shard)["value"].tolist() == [0.25]


def test_python_runs_a_cell_again_that_failed(words, monkeypatch):
    plan = plan_cell(compose(words))
    leave_row(plan, "failed", "No space left.")
    rows = mibench.run(words)
    assert "ok" in set(rows["status"]) and "failed" not in set(rows["status"])


def row_of(plan):
    facts = CellFacts(cell_id=plan.cell_id, group_id=plan.group_id, knowledge="", modality="image", **plan_facts(plan))
    return make_row(facts, Score(metric="target_accuracy", variant="victim", value=0.25))


def test_folders_that_cannot_be_written_are_said_before_anything_is_trained(words, capsys, tmp_path):
    (tmp_path / "results").touch()
    assert main(words) == 2
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "results").unlink()
    (tmp_path / "store").touch()
    assert main(words) == 2
    assert f"The store {tmp_path}/store/victim cannot be written" in capsys.readouterr().err


def test_rows_that_stand_are_shown_from_a_folder_that_cannot_be_written(words, monkeypatch, capsys, tmp_path):
    assert main(words) == 0
    capsys.readouterr()
    for name in ("open", "mkdir", "replace"):
        real = getattr(os, name)

        def refuse(path, *more, real=real, name=name, **named):
            writes = name != "open" or (bool(more) and bool(more[0] & (os.O_WRONLY | os.O_RDWR)))
            if writes and str(path).startswith(str(tmp_path)):
                raise OSError(30, "Read-only file system")
            return real(path, *more, **named)

        monkeypatch.setattr(os, name, refuse)
    plan = plan_cell(compose(words))
    assert main(words) == 0 and "rows      " in capsys.readouterr().out
    assert main(["show", plan.cell_id, *words[-2:]]) == 0
    assert main([*words, "overwrite=always"]) == 2
    assert "cannot be written (Read-only file system)" in capsys.readouterr().err


def test_a_log_that_cannot_be_written_is_done_without(words, capsys, tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "logs").touch()
    assert main(words) == 0 and "the cell runs without it" in capsys.readouterr().err


def test_a_logger_that_raises_costs_a_warning(words, monkeypatch, capsys):
    monkeypatch.setattr("mibench.reporting.tracking.NoLogger.log", full)
    assert main(words) == 0
    assert "The copy for the logger failed (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(TASKS))
def test_a_task_says_of_what_data_it_draws_a_sheet(name):
    task = get_task(name)
    assert bool(task.pictured) == (type(task).sheet is not Task.sheet)
