"""Every benchmark runs through at its smallest size, so that a broken one is noticed; no limit is judged."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = (
    "startup",
    "overhead",
    "attack_steps",
    "half_precision",
    "workers",
    "gradient_matching",
    "training_cost",
    "store",
    "leaderboard",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_through(name):
    code = f"import sys; sys.path.insert(0, 'benchmarks'); import {name}; print(len({name}.measure()))"
    path = os.pathsep.join([str(ROOT), *sys.path])
    here = {**os.environ, "MIBENCH_QUICK": "1", "MIBENCH_PROGRESS": "0", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=here, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout.split()[-1]) > 0


def test_all_benchmarks_are_tried():
    code = ast.parse((ROOT / "benchmarks" / "__main__.py").read_text())
    values = [one.value for one in code.body if isinstance(one, ast.Assign) and one.targets[0].id == "NAMES"]
    assert [ast.literal_eval(value) for value in values] == [NAMES]
