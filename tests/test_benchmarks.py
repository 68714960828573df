"""That every benchmark still runs, at its smallest size; what it measures is judged by ``make bench`` alone."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_every_benchmark_runs_through_and_prints_its_table():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "benchmarks", "--quick"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    names = [line.removesuffix(" ...") for line in done.stderr.splitlines() if line.endswith(" ...")]
    files = {file.stem for file in (ROOT / "benchmarks").glob("*.py") if "def measure(" in file.read_text()}
    assert done.returncode == 0, done.stderr
    assert set(names) == files, "every benchmark is named in benchmarks/__main__.py"
    assert done.stdout.count("measured") == len(names)
    assert not [word for word in ("over", "ok") if any(line.endswith(word) for line in done.stdout.splitlines())]
