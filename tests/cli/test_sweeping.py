"""Sweeps as a person meets them: what is left behind, whatever happens on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mibench.leaderboard.shards import read_shard

ROOT = Path(__file__).parent.parent.parent
TINY = ["attack=dlg", "budget=smoke", "attack.iterations=2", "attack.restarts=1", "threads=1", "device=cpu"]


def command(folder, *words):
    return [
        sys.executable, "-m", "mibench", "-m", *TINY, *words,
        f"paths.store={folder}/store", f"paths.results={folder}/results",
    ]  # fmt: skip


def sweep(folder, *words):
    done = subprocess.run(command(folder, *words), cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    return done.returncode, done.stderr


def shards(folder):
    return {path.stem: read_shard(path) for path in sorted((folder / "results" / "shards").glob("*.parquet"))}


def numbers(frame):
    return frame.drop(columns=["seconds", "training_seconds", "peak_memory_mb", "created_at", "git_commit"])


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    status, err = sweep(folder, "seed=0,1,2", "defense=none,dgc,rounding")
    assert status == 0, err
    return folder, err


def test_a_sweep_tells_what_it_runs_and_leaves_a_row_for_what_it_cannot(uninterrupted):
    folder, err = uninterrupted
    assert "6 cells to run in 6 jobs, 3 that cannot be run, 0 that stand already" in err
    assert "6 measured, 0 failed, 3 skipped" in err
    frames = shards(folder).values()
    skipped = [frame for frame in frames if set(frame["status"]) == {"skipped"}]
    assert len(frames) == 7 and len(skipped) == 1 and "Vacuous" in skipped[0]["reason"].item()


def test_the_same_command_again_runs_nothing(uninterrupted):
    folder, _ = uninterrupted
    before = {path: path.stat().st_mtime_ns for path in (folder / "results" / "shards").iterdir()}
    status, err = sweep(folder, "seed=0,1,2", "defense=none,dgc,rounding")
    assert status == 0 and "0 cells to run" in err and "6 that stand already" in err
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "results" / "shards").iterdir()}


@pytest.mark.slow
def test_killed_at_any_moment_the_same_command_gives_the_rows_of_an_uninterrupted_run(uninterrupted, tmp_path):
    words = ["seed=0,1,2", "defense=none,dgc,rounding"]
    for wanted in (1, 3):  # killed once early and once in the middle
        process = subprocess.Popen(
            command(tmp_path, *words), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        while process.poll() is None and len(list((tmp_path / "results" / "shards").glob("*.parquet"))) < wanted + 1:
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert len(shards(tmp_path)) < 7
    status, err = sweep(tmp_path, *words)
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
    from mibench.planning.grid import products_of

    words = ["grid=first", "dataset=digits", "seed=0", "attack=dlg,fredrikson_map", "defense=glob(*)"]
    words.append(f"paths.results='{tmp_path}'")
    assert main(["plan", *words, "cells=true"]) == 0
    planned = {line[4:].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("run ")}
    grid = OmegaConf.load(ROOT / "conf" / "grid" / "first.yaml")
    swept = gather(products_of(words[1:]), grid, compose)
    assert planned == {" ".join(overrides) for overrides, _ in swept.run} and planned
    excluded = gather(products_of(["dataset=digits", "seed=0", words[-1]]), grid, compose)
    assert not [one for one, _ in excluded.run if "attack=dlg" in one and "defense=bido" in one]


def test_packs_and_another_launcher_give_the_same_rows(uninterrupted, tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    status, err = sweep(
        tmp_path,
        "seed=0,1,2",
        "defense=none,dgc,rounding",
        "pack=2",
        "hydra/launcher=joblib",
        "hydra.launcher.n_jobs=2",
    )
    assert status == 0, err
    assert "6 cells to run in 3 jobs" in err
    expected, found = shards(uninterrupted[0]), shards(tmp_path)
    assert list(expected) == list(found)
    for cell_id, frame in expected.items():
        pd.testing.assert_frame_equal(numbers(frame), numbers(found[cell_id]), check_exact=True)


def test_a_cell_over_its_time_fails_and_the_others_go_on(tmp_path):
    status, err = sweep(tmp_path, "attack.iterations=2,100000", "attack.restarts=100", "time_limit=15")
    frames = list(shards(tmp_path).values())
    reasons = [frame["reason"].iloc[0] for frame in frames if set(frame["status"]) == {"failed"}]
    assert status == 1 and "1 measured, 1 failed" in err
    assert len(frames) == 2 and "time_limit=15" in reasons[0] and "logs" in reasons[0]
    log = Path(reasons[0].rpartition("log: ")[2].rstrip(")"))
    assert "TimeoutError" in log.read_text()


def test_failed_cells_run_again_only_when_asked(tmp_path):
    words = ["seed=0", "attack.lr=nan,1.0"]
    status, _ = sweep(tmp_path, *words)
    statuses = {cell_id: set(frame["status"]) for cell_id, frame in shards(tmp_path).items()}
    assert status == (1 if {"failed"} in statuses.values() else 0)
    status, err = sweep(tmp_path, *words)
    assert "0 cells to run" in err
    status, err = sweep(tmp_path, *words, "overwrite=failed")
    assert f"{sum('failed' in one for one in statuses.values())} cells to run" in err


def test_a_killed_cell_keeps_the_rows_that_it_had_and_one_that_runs_elsewhere_is_left_to_that(tmp_path):
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


def test_an_option_that_the_default_cell_has_not_is_for_the_cells_of_the_sweep(tmp_path):
    def swept(*words):
        words = ["-m", "attack=dlg,idlg", *words, f"paths.results={tmp_path}"]
        words = [sys.executable, "-m", "mibench", *words]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.returncode, done.stderr

    status, err = swept("attack.tolerance_grad=0.1")
    assert status == 2 and "attack.tolerance_grad" in err
    status, err = swept("attack.restarts=1", "defense=rounding")
    assert status == 0 and "0 cells to run in 0 jobs, 2 that cannot be run" in err


def test_a_grid_without_m_and_a_wrong_pack_are_refused(tmp_path):
    words = [sys.executable, "-m", "mibench", "grid=first", f"paths.results={tmp_path}"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "-m grid=first" in done.stderr and "Traceback" not in done.stderr
    status, err = sweep(tmp_path, "seed=0", "pack=0")
    assert status == 2 and "pack" in err and "Traceback" not in err
