"""Sweeps as a person meets them: what is left behind, whatever happens on the way.

They run in the process of the tests, but for those that are killed or that have a launcher.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mibench.attacks.dlg import Dlg
from mibench.leaderboard.shards import read_shard

ROOT = Path(__file__).parent.parent.parent
TINY = ["attack=dlg", "budget=smoke", "dataset.size=8", "attack.iterations=2", "attack.restarts=1", "threads=1",
        "device=cpu"]  # fmt: skip

#: Four cells, and two of one combination that cannot be run.
GRID = ["seed=0,1", "defense=none,dgc,rounding"]


@pytest.fixture(scope="module")
def command(places):
    return lambda folder, *words: [sys.executable, "-m", "mibench", "-m", *TINY, *words, *places(folder)]


@pytest.fixture(scope="module")
def sweep(mibench, places):
    def run(folder, *words):
        status, _, err = mibench("-m", *TINY, *words, *places(folder))
        return status, err

    return run


def shards(folder):
    return {path.stem: read_shard(path) for path in sorted((folder / "results" / "shards").glob("*.parquet"))}


def numbers(frame):
    return frame.drop(columns=["seconds", "training_seconds", "peak_memory_mb", "created_at", "git_commit"])


@pytest.fixture(scope="module")
def uninterrupted(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, err = sweep(folder, *GRID)
    assert status == 0, err
    return folder, err


def test_a_sweep_tells_what_it_runs_and_leaves_a_row_for_what_it_cannot(uninterrupted):
    folder, err = uninterrupted
    assert "4 cells to run in 4 jobs, 2 that cannot be run, 0 that stand already" in err
    assert "4 measured, 0 failed, 2 skipped" in err
    frames = shards(folder).values()
    skipped = [frame for frame in frames if set(frame["status"]) == {"skipped"}]
    assert len(frames) == 5 and len(skipped) == 1 and "Vacuous" in skipped[0]["reason"].item()


def test_the_same_command_again_runs_nothing(sweep, uninterrupted):
    folder, _ = uninterrupted
    before = {path: path.stat().st_mtime_ns for path in (folder / "results" / "shards").iterdir()}
    status, err = sweep(folder, *GRID)
    assert status == 0 and "0 cells to run" in err and "4 that stand already" in err
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "results" / "shards").iterdir()}


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_gives_the_rows_of_an_uninterrupted_run(
    command, sweep, uninterrupted, tmp_path
):
    for wanted in (1, 2):  # killed once early and once in the middle
        process = subprocess.Popen(
            command(tmp_path, *GRID), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and len(list((tmp_path / "results" / "shards").glob("*.parquet"))) < wanted + 1:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(shards(tmp_path)) < 5
    status, err = sweep(tmp_path, *GRID)
    assert status == 0, err
    expected, found = shards(uninterrupted[0]), shards(tmp_path)
    assert list(expected) == list(found)
    for cell_id, frame in expected.items():
        pd.testing.assert_frame_equal(numbers(frame), numbers(found[cell_id]), check_exact=True)
    assert not list((tmp_path / "results" / "shards").glob(".*"))


def test_a_sweep_runs_the_cells_of_its_plan(capsys, tmp_path):
    from omegaconf import OmegaConf

    from mibench.cli.main import main
    from mibench.cli.sweeping import gather
    from mibench.planning.composition import compose
    from mibench.planning.products import products_of

    words = ["grid=first", "dataset=digits", "seed=0", "attack=dlg,fredrikson_map", "defense=glob([b*,d*])"]
    words.append(f"paths.results='{tmp_path}'")
    assert main(["plan", *words, "cells=true"]) == 0
    planned = {line[4:].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("run ")}
    grid = OmegaConf.load(ROOT / "conf" / "grid" / "first.yaml")
    swept = gather(products_of(words[1:]), grid, compose)
    assert planned == {" ".join(overrides) for overrides, _ in swept.run} and planned
    excluded = gather(products_of(["dataset=digits", "seed=0", words[-1]]), grid, compose)
    assert not [one for one, _ in excluded.run if "attack=dlg" in one and "defense=bido" in one]


@pytest.mark.slow  # the fast check of packs in other processes is that of submitit in test_launchers.py
def test_packs_and_another_launcher_give_the_same_rows(command, uninterrupted, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = command(tmp_path, *GRID, "pack=3", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "4 cells to run in 2 jobs" in done.stderr
    expected, found = shards(uninterrupted[0]), shards(tmp_path)
    assert list(expected) == list(found)
    for cell_id, frame in expected.items():
        pd.testing.assert_frame_equal(numbers(frame), numbers(found[cell_id]), check_exact=True)


@pytest.fixture
def endless(monkeypatch):
    """DLG with two restarts searches without end; the limit of its cell is not waited for but rings at once."""
    search = Dlg.reconstruct

    def reconstruct(self, *arguments):
        while self.restarts == 2:
            assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 300, "the cell has set no alarm"
            signal.raise_signal(signal.SIGALRM)
            time.sleep(1)
        return search(self, *arguments)

    monkeypatch.setattr(Dlg, "reconstruct", reconstruct)


def test_a_cell_over_its_time_fails_and_the_others_go_on(sweep, endless, tmp_path):
    status, err = sweep(tmp_path, "attack.restarts=2,1", "time_limit=300")
    frames = list(shards(tmp_path).values())
    reasons = [frame["reason"].iloc[0] for frame in frames if set(frame["status"]) == {"failed"}]
    assert status == 1 and "1 measured, 1 failed" in err
    assert len(frames) == 2 and "time_limit=300" in reasons[0] and "logs/" in reasons[0]
    log = next(tmp_path.rglob(reasons[0].rpartition("log: ")[2].rstrip(")")))
    assert "TimeLimitReached" in log.read_text()


def test_failed_cells_run_again_only_when_asked(sweep, tmp_path):
    words = ["seed=0", "attack.lr=nan,1.0"]
    status, _ = sweep(tmp_path, *words)
    statuses = {cell_id: set(frame["status"]) for cell_id, frame in shards(tmp_path).items()}
    assert status == (1 if {"failed"} in statuses.values() else 0)
    status, err = sweep(tmp_path, *words)
    assert "0 cells to run" in err
    status, err = sweep(tmp_path, *words, "overwrite=failed")
    assert f"{sum('failed' in one for one in statuses.values())} cells to run" in err


def test_a_killed_cell_keeps_the_rows_that_it_had_and_one_that_runs_elsewhere_is_left_to_that(tmp_path, monkeypatch):
    from mibench.cli.sweeping import left_by, written_at
    from mibench.planning.composition import compose
    from mibench.planning.plan import plan_cell
    from mibench.running.standing import claim_of, leave_row

    plan = plan_cell(compose([f"paths.results={tmp_path}"]))
    with claim_of(plan):
        assert left_by(plan, None)[0] == "elsewhere" and written_at(plan) is None
    leave_row(plan, "ok", "")
    before = written_at(plan)
    status, reason = left_by(plan, before)
    assert status == "failed" and "kept" in reason and written_at(plan) == before
    assert left_by(plan, None) == ("ok", "")
    changes = iter([None, before])
    monkeypatch.setattr("mibench.cli.sweeping.written_at", lambda _plan: next(changes))
    assert left_by(plan, None) == ("ok", ""), "another process ended the cell while it was claimed"


def test_an_option_that_the_default_cell_has_not_is_for_the_cells_of_the_sweep(mibench, tmp_path):
    words = ["-m", "attack=dlg,idlg", f"paths.results={tmp_path}"]
    status, _, err = mibench(*words, "attack.tolerance_grad=0.1")
    assert status == 2 and "attack.tolerance_grad" in err
    status, _, err = mibench(*words, "attack.restarts=1", "defense=rounding")
    assert status == 0 and "0 cells to run in 0 jobs, 2 that cannot be run" in err


def test_a_grid_without_m_and_a_wrong_pack_are_refused(mibench, sweep, tmp_path):
    status, _, err = mibench("grid=first", f"paths.results={tmp_path}")
    assert status == 2 and "-m grid=first" in err and "Traceback" not in err
    status, err = sweep(tmp_path, "seed=0", "pack=0")
    assert status == 2 and "pack" in err and "Traceback" not in err
