"""What the harness itself costs in a warm cell: ``python benchmarks/overhead.py``.

The default cell on the digits with ``budget=smoke`` runs once, so that its artifacts are in the store; then its rows
are removed and it runs again, each time in a fresh process: everything but the attack, which comes from the store. From
the CPU seconds of such a run go those inside the metrics (``Metric.measure``; means and intervals count as harness) and
those of a process that only imports the third-party modules that the run had imported at its end.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from figures import Figure, cpu_seconds, report, sized

LIMIT = 1.0
RUNS = sized(7, 1)

#: What makes the cell small in a quick run.
SMALLEST = sized(
    [],
    [
        "dataset.size=8",
        "target.recipe.epochs=1",
        "prior.iterations=1",
        "prior.width=4",
        "attack.iterations=1",
        "control=none",
        "evaluation.models=[mlp]",
        "evaluation.min_steps=1",
    ],
)

#: A run of the command line that notes the CPU seconds inside metrics and the modules it imported.
RUN = """
import json, sys, time
import mibench.leaderboard.scoring
from mibench.cli.main import main

score, spent = mibench.leaderboard.scoring.score, []

def clocked(metric, *rest):
    measure = metric.measure
    def timed(*given):
        start = time.process_time()
        try:
            return measure(*given)
        finally:
            spent.append(time.process_time() - start)
    metric.measure = timed
    return score(metric, *rest)

mibench.leaderboard.scoring.score = clocked
status = main(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    json.dump({"metrics": spent, "modules": list(sys.modules)}, file)
sys.exit(status)
"""

#: Imports what it is told to, in the order in which the run did.
IMPORT = """
import contextlib, importlib, json, sys

with open(sys.argv[1]) as file:
    names = json.load(file)
for name in names:
    with contextlib.suppress(Exception):
        importlib.import_module(name)
"""


def third_party(modules: list[str]) -> list[str]:
    """Return the modules that are neither mibench's nor Python's own."""
    ours = ("mibench", "hydra_plugins", "__main__", "__mp_main__")
    return [
        name for name in modules if (top := name.partition(".")[0]) not in (*ours, *sys.stdlib_module_names) and top
    ]


def measure() -> list[Figure]:
    root = Path(tempfile.mkdtemp(prefix="mibench-overhead-"))
    notes, names = root / "notes.json", root / "names.json"
    words = ["budget=smoke", "device=cpu", f"paths.store={root}/store", f"paths.results={root}/results", *SMALLEST]
    cold = cpu_seconds(["-c", RUN, str(notes), *words])
    stored = {file: file.stat().st_mtime_ns for file in (root / "store").rglob("manifest.json")}
    warm, imports, metrics = [], [], []
    for _ in range(RUNS):
        shutil.rmtree(root / "results")
        warm.append(cpu_seconds(["-c", RUN, str(notes), *words]))
        told = json.loads(notes.read_text())
        metrics.append(sum(told["metrics"]))
        names.write_text(json.dumps(third_party(told["modules"])))
        imports.append(cpu_seconds(["-c", IMPORT, str(names)]))
    if stored != {file: file.stat().st_mtime_ns for file in (root / "store").rglob("manifest.json")}:
        raise RuntimeError("The warm runs built artifacts, so what was measured is not the harness.")
    shutil.rmtree(root)
    own = [whole - inside - modules for whole, inside, modules in zip(warm, metrics, imports, strict=True)]
    return [
        Figure("cold cell (digits, budget=smoke): CPU", cold, "s"),
        Figure("warm cell: CPU", statistics.median(warm), "s"),
        Figure("warm cell: importing the same third-party modules", statistics.median(imports), "s"),
        Figure("warm cell: inside metrics", statistics.median(metrics), "s"),
        Figure("warm cell: the harness", statistics.median(own), "s", LIMIT),
    ]


if __name__ == "__main__":
    raise SystemExit(report(measure()))
