"""All benchmarks, each in a process of its own: ``python benchmarks`` or ``make bench``; figures come one by one.

``python benchmarks --quick`` runs each at its smallest size, to see that it still runs: no limit is judged.
"""

from __future__ import annotations

import multiprocessing
import sys
import traceback
from concurrent.futures import ProcessPoolExecutor

from figures import measured, report

NAMES = (
    "startup",
    "overhead",
    "attack_steps",
    "half_precision",
    "workers",
    "gradient_matching",
    "span_test",
    "training_cost",
    "store",
    "leaderboard",
)


def main() -> int:
    """Print the figures and return 1 where a limit is exceeded or a benchmark fails."""
    status = 0
    for name in NAMES:
        print(f"{name} ...", file=sys.stderr)
        try:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as alone:
                status |= report(alone.submit(measured, name).result())
        except Exception:  # the others are measured all the same
            traceback.print_exc()
            status = 1
        sys.stdout.flush()
    return status


if __name__ == "__main__":
    raise SystemExit(main())
