"""Two one-thread workers against one two-thread worker: ``python benchmarks/workers.py``.

Ten small cells (five attacks, two seeds) from a fresh store, once as two processes of one thread each (joblib) and once
in one process with two threads; what counts is the wall time of the whole sweep, the starts of its processes included.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from figures import ROOT, Figure, report, sized

CELLS = sized(
    ["attack=gmi,mi_face,kedmi,deepinversion,brepmi", "seed=0,1"], ["attack=random_prior,nearest_public", "seed=0"]
)
TWO = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "pack=1", "threads=1")
ONE = ("threads=2",)


def seconds(*how: str) -> float:
    """Return the wall seconds of the sweep from a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        here = ["budget=smoke", f"paths.store={folder}/store", f"paths.results={folder}/results", *how]
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "mibench", "-m", *CELLS, *here],
            cwd=ROOT,
            env={**environment, "MIBENCH_PROGRESS": "0", "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the sweep exited with {done.returncode}:\n{done.stderr[-2000:]}")
        return time.perf_counter() - start


def measure() -> list[Figure]:
    two, one = seconds(*TWO), seconds(*ONE)
    return [
        Figure("ten small cells, two workers of one thread: wall", two, "s"),
        Figure("ten small cells, one worker of two threads: wall", one, "s"),
        Figure("ten small cells, two workers / one worker", two / one, "x", 1.0),
    ]


if __name__ == "__main__":
    sys.exit(report(measure()))
