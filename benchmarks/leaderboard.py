"""How long the leaderboard takes over many shards: ``python benchmarks/leaderboard.py [shards] [folder]``.

Writes synthetic shards (10 rows each: 2 attacks x 4 defenses x 3 datasets x 2 budgets x 5 seeds, at as many lengths of
the attack as it takes), then times the command in a process of its own: the first build, a rebuild after one new shard,
and a full build of the same shards, whose files must have the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mibench.cell import plan_facts
from mibench.composition import compose, plan_cell
from mibench.leaderboard.rows import CellFacts, make_row
from mibench.leaderboard.shards import write_shard
from mibench.scoring import Score
from mibench.store import digest_of

ATTACKS = ("gmi", "mi_face")
DEFENSES = ("none", "bido", "bido_coco", "dp_sgd")
DATASETS = ("digits", "mnist", "att_faces")
BUDGETS = ("smoke", "standard")
SEEDS = 5
LIMITS = {"first build": 20.0, "one new shard": 2.0}


def write_shards(results: Path, count: int) -> None:
    """Writes the shards: every choice, with ``attack.iterations`` varied until there are enough."""
    rng = random.Random(0)
    choices = [
        plan_cell(compose([f"attack={a}", f"defense={d}", f"dataset={s}", f"budget={b}"]))
        for a in ATTACKS
        for d in DEFENSES
        for s in DATASETS
        for b in BUDGETS
    ]
    for number in range(count):
        plan = choices[number // SEEDS % len(choices)]
        config = json.loads(json.dumps(plan.description))
        config["attack"]["iterations"] = 100 + number // (SEEDS * len(choices))
        group = digest_of({**config, "seed": None})
        config["seed"] = number % SEEDS
        facts = {**plan_facts(plan), "seed": config["seed"], "config": json.dumps(config, sort_keys=True)}
        facts["created_at"] = "2026-01-01T00:00:00+00:00"
        cell = CellFacts(
            cell_id=digest_of(config), group_id=group, knowledge="public", modality="image", queries=number,
            seconds=1.0, **facts,
        )  # fmt: skip
        scores = [
            Score(metric="target_accuracy", variant="victim", value=rng.random(), ci_low=0.1, ci_high=0.9, n=100),
            Score(metric="attack_accuracy", variant="top5", status="skipped", reason="Top-5 of five classes."),
        ]
        for metric, variant, evaluator in [
            ("attack_accuracy", "top1", "vote"), ("attack_accuracy", "top1", "mlp"),
            ("attack_accuracy", "top1", "residual"), ("feature_distance", "centroid", "mlp"),
            ("feature_distance", "centroid", "residual"), ("knn_distance", "", "mlp"),
            ("knn_distance", "", "residual"), ("psnr", "", ""),
        ]:  # fmt: skip
            value = rng.random()
            scores.append(Score(
                metric=metric, variant=variant, evaluator=evaluator, value=value, ci_low=value - 0.1, n=40,
                ci_high=value + 0.1, control=0.2, lift=value - 0.2, lift_low=value - 0.35, lift_high=value,
                higher_is_leakier=True,
            ))  # fmt: skip
        write_shard(results, cell.cell_id, [make_row(cell, one) for one in scores])


def build(results: Path) -> float:
    """Runs the command and returns its seconds."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "mibench", "leaderboard", f"paths.results={results}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of the built files."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("leaderboard.parquet", "README.md", "index.html")
    }


def main() -> int:
    """Prints seconds and whether bytes agree; returns 1 where a limit is exceeded or bytes differ."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    root = Path(sys.argv[2] if len(sys.argv) > 2 else tempfile.mkdtemp(prefix="mibench-leaderboard-"))
    results = root / "results"
    write_shards(results, count)
    newest = max((results / "shards").iterdir(), key=lambda path: path.name)
    spare = root / newest.name
    os.replace(newest, spare)
    seconds = {"first build": build(results)}
    shutil.copy2(spare, newest)
    seconds["one new shard"] = build(results)
    incremental = digests(results / "local")
    shutil.rmtree(results / "local")
    seconds["the same from nothing"] = build(results)
    same = digests(results / "local") == incremental
    for name, taken in seconds.items():
        print(f"{name:<24}{taken:6.2f} s" + (f"   at most {LIMITS[name]:g} s" if name in LIMITS else ""))
    print(f"{'same bytes':<24}{same}")
    print(f"{'page':<24}{(results / 'local' / 'index.html').stat().st_size / 2**20:6.2f} MiB")
    return 0 if same and all(seconds[name] <= limit for name, limit in LIMITS.items()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
