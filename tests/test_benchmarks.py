"""Every benchmark runs through at its smallest size, so that a broken one is noticed; no limit is judged."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ast.parse((ROOT / "benchmarks" / "__main__.py").read_text())
(NAMES,) = (
    ast.literal_eval(one.value)
    for one in SOURCE.body
    if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == "NAMES"
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
    measuring = {one.stem for one in (ROOT / "benchmarks").glob("*.py") if "\ndef measure(" in one.read_text()}
    assert sorted(NAMES) == sorted(measuring)
