"""Two one-thread workers against one two-thread worker: ``python benchmarks/workers.py``.

Twelve small cells (four attacks, three seeds) from a fresh store, once as two processes of one thread each (joblib) and
once in one process with two threads; what counts is the wall time of the whole sweep, the starts of its processes
included. Victims are trained as always. There are no controls, and one evaluation model judges. The machine must be
quiet: two threads of one process wait for each other, so that what else runs delays them far more than two processes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from figures import ROOT, Figure, report, sized

CELLS = sized(
    ["attack=mi_face,deepinversion,brepmi,nearest_public", "seed=0,1,2"],
    [
        "attack=nearest_public",
        "seed=0",
        "target.recipe.epochs=1",
        "target.recipe.min_steps=0",
        "evaluation.min_steps=1",
        "metric=[target_accuracy]",
    ],
)
HERE = ("budget=smoke", "control=none", "evaluation.models=[mlp]")
TWO = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "pack=1", "threads=1")
ONE = sized(("threads=2",), ("threads=1",))


def seconds(*how: str) -> float:
    """Return the wall seconds of the sweep from a fresh store."""
    with tempfile.TemporaryDirectory() as folder:
        here = [*HERE, f"paths.store={folder}/store", f"paths.results={folder}/results", *how]
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
        Figure("small cells, two workers of one thread: wall", two, "s"),
        Figure("small cells, one worker of two threads: wall", one, "s"),
        Figure("small cells, two workers / one worker", two / one, "x", 1.0),
    ]


if __name__ == "__main__":
    sys.exit(report(measure()))
