"""All benchmarks, each in a process of its own, as one table: ``python benchmarks`` or ``make bench``."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from figures import measured, report

NAMES = ("startup", "overhead", "attack_steps", "gradient_matching", "store", "leaderboard")


def main() -> int:
    """Prints the table and returns 1 where a limit is exceeded."""
    figures = []
    for name in NAMES:
        print(f"{name} ...", file=sys.stderr)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
            figures += alone.submit(measured, name).result()
    return report(figures)


if __name__ == "__main__":
    raise SystemExit(main())
