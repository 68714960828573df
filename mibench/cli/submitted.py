"""Jobs handed to submitit: each is waited for whatever became of the others, and Slurm's queue says which are over.

By itself submitit's launcher gives up at the first killed job, while others still run or wait, and it asks ``sacct``,
which never says that a job is over on a cluster without accounting. Every cluster has a queue.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from submitit import Job, SlurmJob
from submitit.slurm.slurm import SlurmInfoWatcher

log = logging.getLogger("mibench")

#: Most seconds between two looks at Slurm's queue.
LOOK_EVERY = 60


class QueueWatcher(SlurmInfoWatcher):
    """Holds a job for over once it is no longer in the queue, neither waiting nor running."""

    def _make_command(self) -> list[str] | None:
        if not self._registered - self._finished:
            return None
        return ["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%i"]

    def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
        """Return the state of every job from the ids that ``squeue`` lists."""
        text = string if isinstance(string, str) else string.decode()
        queued = set(text.split())
        return {job: {"State": "RUNNING" if job in queued else "GONE"} for job in self._registered}


def awaited(job: Job[Any]) -> list[None]:
    """Wait until a job is over, and tell where its log is if it left no result; the rows say what it measured."""
    job.wait()
    if not job.paths.result_pickle.exists():
        log.warning("Job %s left no result (killed, or over its time); its log: %s", job.job_id, job.paths.stderr)
    elif (error := job.exception()) is not None:
        log.warning("Job %s ended with an error: %s", job.job_id, error)
    return [None]


def await_every_job() -> None:
    """Make submitit's launchers wait for all jobs of this process's sweep."""
    SlurmJob.watcher = QueueWatcher(delay_s=LOOK_EVERY)
    Job.results = awaited  # type: ignore[assignment]
