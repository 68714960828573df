"""One runner for the command line and for Python: claim, log, time limit, failed row and logger are alike."""

import logging

import pytest

import mibench
from mibench.cli.main import main
from mibench.errors import MibenchError
from mibench.leaderboard.shards import read_shard
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.running.standing import claim_of, finished, log_of, run_under_claim


@pytest.fixture
def words(tmp_path):
    return ["attack=mi_face", "attack.iterations=2", "target.recipe.epochs=1", "budget=smoke", "device=cpu",
            "control=none", "evaluation.count=0", "metric=[target_accuracy]", f"paths.store={tmp_path}/store",
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
