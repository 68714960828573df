import importlib
import os
import time

import pytest

submitit = pytest.importorskip("submitit")
submitted = importlib.import_module("mibench.cli.submitted")


@pytest.fixture
def waiting(monkeypatch):
    monkeypatch.setattr(submitit.Job, "results", submitit.Job.results)  # so that both are as before after the test
    monkeypatch.setattr(submitit.SlurmJob, "watcher", submitit.SlurmJob.watcher)
    submitted.await_every_job()


def test_a_job_is_waited_for_though_one_before_it_was_killed(waiting, tmp_path, caplog):
    executor = submitit.LocalExecutor(tmp_path)
    killed, broken, slow = executor.submit(os._exit, 9), executor.submit(int, "x"), executor.submit(time.sleep, 3)
    started = time.monotonic()
    for job in (killed, broken, slow):
        job.results()
    assert time.monotonic() - started < 15 and slow.paths.result_pickle.exists()
    assert f"Job {killed.job_id} left no result" in caplog.text and str(killed.paths.stderr) in caplog.text
    assert f"Job {broken.job_id} ended with an error" in caplog.text and "ValueError" in caplog.text
    assert f"Job {slow.job_id}" not in caplog.text


def test_a_slurm_job_is_over_once_the_queue_does_not_list_it(tmp_path, monkeypatch):
    queue = tmp_path / "queue"
    squeue = tmp_path / "squeue"
    squeue.write_text(f"#!/bin/sh\ncat {queue}\n")
    squeue.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    watcher = submitted.QueueWatcher()
    for job in ("12_0", "12_1", "13"):
        watcher.register_job(job)

    queue.write_text("12_1\n13\n99\n")
    assert [watcher.is_done(job, mode="force") for job in ("12_0", "12_1", "13")] == [True, False, False]
    queue.unlink()  # a controller that does not answer says nothing of the jobs
    time.sleep(0.01)
    assert not watcher.is_done("13", mode="force")
    queue.write_text("")
    time.sleep(0.01)
    assert watcher.is_done("13", mode="force") and watcher.is_done("12_1", mode="cache")
