"""What every benchmark here measures with and prints as: a figure, its limit, and whether it is kept."""

from __future__ import annotations

import importlib
import math
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).parents[1]

#: What follows the program's name.
ARGUMENTS = [word for word in sys.argv[1:] if word != "--quick"]

#: Whether benchmarks run at their smallest size, where figures mean nothing and no limit is judged.
QUICK = "--quick" in sys.argv or bool(os.environ.get("MIBENCH_QUICK"))
if QUICK:
    os.environ["MIBENCH_QUICK"] = "1"  # the processes that a benchmark starts are to know

T = TypeVar("T")


def sized(full: T, quick: T) -> T:
    """Return a size of the benchmark, or what it is in a quick run."""
    return quick if QUICK else full


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: What was measured.
        value: The number; for a yes or no 1 or 0; NaN where this machine cannot tell.
        unit: ``s``, ``x`` (a ratio) and the like, or empty.
        limit: The largest value that is within bounds; None where there is no bound.
    """

    name: str
    value: float
    unit: str = ""
    limit: float | None = None

    @property
    def verdict(self) -> str:
        """``ok`` within the limit, ``over`` above it, and empty where no limit is judged."""
        if self.limit is None or QUICK or math.isnan(self.value):
            return ""
        return "ok" if self.value <= self.limit else "over"


def report(figures: Sequence[Figure]) -> int:
    """Print the table and return the exit status: 1 where a limit is exceeded."""
    print(f"{'figure':<72}{'measured':>14}{'limit':>12}")
    for one in figures:
        limit = "" if one.limit is None else f"{one.limit:g} {one.unit}".rstrip()
        value = "not available" if math.isnan(one.value) else f"{one.value:.4g} {one.unit}".rstrip()
        print(f"{one.name:<72}{value:>14}{limit:>12}  {one.verdict}".rstrip())
    return int(any(one.verdict == "over" for one in figures))


def measured(benchmark: str) -> list[Figure]:
    """Run one benchmark of this folder; it stands here, where a process of its own can import it from."""
    figures: list[Figure] = importlib.import_module(benchmark).measure()
    return figures


def cpu_seconds(command: Sequence[str], cwd: Path = ROOT) -> float:
    """Run Python with these arguments and return the CPU seconds, user and system, of it and its children."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MIBENCH_PROGRESS": "0"}
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}:\n{done.stderr}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
