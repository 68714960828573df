"""How long the leaderboard takes over many shards: ``python benchmarks/leaderboard.py [shards]``.

Writes synthetic shards (10 rows each: 2 attacks x 4 defenses x 3 datasets x 2 budgets x 5 seeds, at as many lengths of
the attack as it takes), then times the command in a process of its own: the first build, a rebuild after one new shard,
and a full build of the same shards, whose files must have the same bytes.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import random
import shutil
import tempfile
import time
from pathlib import Path

from figures import ARGUMENTS, Figure, cpu_seconds, report, sized

from mibench.leaderboard.rows import CellFacts, make_row, plan_facts
from mibench.leaderboard.scoring import Score
from mibench.leaderboard.shards import write_shard
from mibench.planning.composition import compose
from mibench.planning.plan import plan_cell
from mibench.storage.store import digest_of

ATTACKS = ("gmi", "mi_face")
DEFENSES = ("none", "bido", "bido_coco", "dp_sgd")
DATASETS = ("digits", "mnist", "att_faces")
BUDGETS = ("smoke", "standard")
SEEDS = 5
LIMITS = {"first build": 20.0, "rebuild after one new shard": 2.0}


def write_shards(results: Path, count: int) -> None:
    """Write the shards: every choice, with ``attack.iterations`` varied until there are enough."""
    rng = random.Random(0)
    needed = itertools.islice(itertools.product(ATTACKS, DEFENSES, DATASETS, BUDGETS), -(-count // SEEDS))
    choices = [
        plan_cell(compose([f"attack={a}", f"defense={d}", f"dataset={s}", f"budget={b}"])) for a, d, s, b in needed
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


def build(results: Path) -> tuple[float, float]:
    """Run the command and return its wall and its CPU seconds."""
    start = time.perf_counter()
    cpu = cpu_seconds(["-m", "mibench", "leaderboard", f"paths.results={results}"])
    return time.perf_counter() - start, cpu


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the built files."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("leaderboard.parquet", "README.md", "index.html", "page/numbers.js")
    }


def measure(count: int = sized(10_000, 5)) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="mibench-leaderboard-") as name:
        root = Path(name)
        results = root / "results"
        write_shards(results, count)
        newest = max((results / "shards").iterdir(), key=lambda path: path.name)
        os.replace(newest, root / newest.name)
        seconds = {"first build": build(results)}
        os.replace(root / newest.name, newest)
        seconds["rebuild after one new shard"] = build(results)
        incremental = digests(results / "local")
        shutil.rmtree(results / "local")
        seconds["full build of the same shards"] = build(results)
        differing = sum(digests(results / "local")[name] != sha for name, sha in incremental.items())
        sizes = {name: (results / "local" / name).stat().st_size / 2**20 for name in ("index.html", "page/numbers.js")}
    figures = []
    for name, (wall, cpu) in seconds.items():
        figures.append(Figure(f"leaderboard of {count:,} shards: {name}", wall, "s", LIMITS.get(name)))
        figures.append(Figure("    of that CPU", cpu, "s"))
    figures.append(Figure("leaderboard: files of the rebuild that differ from the full build's", differing, "", 0))
    figures += [Figure(f"leaderboard: {name}", size, "MiB") for name, size in sizes.items()]
    return figures


if __name__ == "__main__":
    raise SystemExit(report(measure(*map(int, ARGUMENTS[:1]))))
