"""The part of ``scripts/gpu_check.sh`` that compares and measures: ``python scripts/gpu_check.py FOLDER``.

FOLDER holds the planned sweeps (``cells.txt``) and what they left as ``cpu``, ``cuda`` and ``bfloat16``. Every planned
cell must have rows on the CPU and end on a GPU as it does there. The number by which a task's attacks are compared
first, and the accuracy of the victim, must agree:

- A closed form finds the same inputs wherever it is computed. Its PSNR may differ by ``EXACT`` dB, and 40 dB and more
  are one value: beyond that the numbers show rounding alone.
- A search starts elsewhere on a GPU, whose random streams differ, and a smoke cell takes few steps. Its PSNR may differ
  by ``SEARCHED`` dB. A share of ``n`` may differ by three standard errors of a difference of two such shares at one
  half, 3 (1 / 2n)^(1/2); with four targets or fewer that is above 1, so that how the cell ends is all that is judged.

Steps of all loops of ``tests/white_box_loops.py`` are timed in both precisions, and must not make the host wait.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.base import Attack
from mibench.data import Examples, InputSpec
from mibench.knowledge import Knowledge
from mibench.leaderboard.shards import read_shard
from mibench.targets.resnet18 import ResNet18
from mibench.tasks import get_task
from mibench.tasks.class_ import ClassGoal

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

#: By how many dB the PSNR of closed forms and of searches may differ.
EXACT, SEARCHED = 1.0, 6.0
#: Families whose answer is computed, not searched.
CLOSED = ("closed form",)
CELL = ["dataset", "setting", "target", "attack", "defense"]
NUMBER = [*CELL, "metric", "variant", "evaluator"]
STEPS, WARM = 16, 6


def rows(folder: Path) -> pd.DataFrame:
    """Return the rows of a sweep; none of one that left nothing."""
    shards = sorted((folder / "results" / "shards").glob("*.parquet"))
    return pd.concat([read_shard(path) for path in shards]) if shards else pd.DataFrame(columns=[*NUMBER, "status"])


def planned(cells: str) -> set[tuple[str, ...]]:
    """Return the cells of sweeps, the words of one a line, as what is said of them; ``defense=none`` goes unsaid."""
    found = set()
    for line in cells.splitlines():
        choices = [
            [f"{key}={value}" for value in values.split(",")]
            for key, _, values in (word.partition("=") for word in line.split())
        ]
        found |= {tuple(one for one in cell if one != "defense=none") for cell in itertools.product(*choices)}
    return found


def leading(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of headlines and of victims' accuracies that were measured."""

    def leads(row: pd.Series) -> bool:
        number = (row["metric"], row["variant"], row["evaluator"])
        task = get_task(row["task"])
        return row["metric"] == "target_accuracy" or number in {task.headline, *(one for _, one in task.headlines)}

    measured = frame[frame["status"] == "ok"]
    return measured[measured.apply(leads, axis=1)] if len(measured) else measured


def tolerance(row: pd.Series) -> float:
    """Return by how much a number may differ; the row holds what both runs say of it."""
    if row["metric"] == "psnr":
        return EXACT if row["attack_family_cpu"] in CLOSED else SEARCHED
    return 3 * (0.5 / max(1.0, float(row["n_cpu"]))) ** 0.5


def apart(row: pd.Series) -> float:
    """Return how far the two values of a number lie apart."""
    cpu, other = row["value_cpu"], row["value_other"]
    if row["metric"] == "psnr" and row["attack_family_cpu"] in CLOSED:
        cpu, other = min(cpu, 40.0), min(other, 40.0)
    return abs(cpu - other)


def compare(folder: Path, name: str) -> list[str]:
    """Return what differs between a run and the CPU's, a line each."""
    cpu, other = rows(folder / "cpu"), rows(folder / name)
    ends = [frame.groupby(CELL)["status"].agg(lambda all_of: " ".join(sorted(set(all_of)))) for frame in (cpu, other)]
    both = pd.concat(ends, axis=1, keys=("cpu", name)).fillna("missing")
    found = [
        f"{' '.join(cell)}: {row['cpu']} on the CPU, {row[name]} at {name}"
        for cell, row in both.iterrows()
        if row["cpu"] != row[name]
    ]
    joined = leading(cpu).merge(leading(other), on=NUMBER, suffixes=("_cpu", "_other"))
    for _, row in joined.iterrows():
        if not apart(row) <= tolerance(row):
            words = " ".join(row[one] for one in [*CELL, "metric"])
            values = f"{row['value_cpu']:.3g} on the CPU, {row['value_other']:.3g} at {name}"
            found.append(f"{words}: {values}, more than {tolerance(row):.2g} apart")
    print(f"gpu_check: {name}: {len(both)} cells and {len(joined)} values compared, {len(found)} differences")
    return found


def step(name: str, attack: Attack, prior: object, precision: str) -> list[str]:
    """Time an attack's steps with host synchronisations forbidden between them; return what went wrong."""
    device, spec = torch.device("cuda"), InputSpec("image", (3, 64, 64), classes=16, mirrored=True)
    view = WhiteBoxView.of(ResNet18(spec=spec).eval(), spec, Ledger(), device)
    network = None if prior is None else prior.network(spec).to(device).eval().requires_grad_(False)
    public = Examples(torch.rand(64, *spec.shape, device=device), torch.zeros(64, dtype=torch.long, device=device))
    steps, marks = attack.steps, []

    def watched(count: int, what: str = "") -> Iterator[int]:
        for number in steps(count, what):
            if number == WARM:
                torch.cuda.synchronize()
                marks.append((time.perf_counter(), count - WARM))
                torch.cuda.set_sync_debug_mode("error")
            yield number
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        marks.append((time.perf_counter(), 0))

    object.__setattr__(attack, "steps", watched)
    try:
        goal = ClassGoal(torch.arange(16), samples=4)
        result = attack(view, Knowledge(public, network), goal, seed=0, precision=precision)
    except RuntimeError as error:
        return [f"{name} in {precision}: {str(error).splitlines()[0]}"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    watched_loops = [(b[0] - a[0], a[1]) for a, b in itertools.pairwise(marks) if a[1]]
    if not watched_loops:
        return [f"{name} in {precision}: no step was watched"]
    rate = sum(count for _, count in watched_loops) / sum(seconds for seconds, _ in watched_loops)
    print(f"gpu_check: {name} in {precision}: {rate:.1f} steps/s, peak {result.peak_memory_mb:.0f} MB")
    return []


def main(folder: Path) -> int:
    """Print what was found and return the exit status."""
    if not torch.cuda.is_available():
        print("gpu_check: there is no CUDA device here, so nothing was checked.", file=sys.stderr)
        return 1
    from white_box_loops import ATTACKS, PRIORS

    done = len(list((folder / "cpu" / "results" / "shards").glob("*.parquet")))
    wanted = len(planned((folder / "cells.txt").read_text()))
    found = [] if done == wanted else [f"{done} of {wanted} cells have rows on the CPU"]
    found += [line for name in ("cuda", "bfloat16") for line in compare(folder, name)]
    for precision in ("float32", "bfloat16"):
        for name, (make, prior) in ATTACKS.items():
            found += step(name, make(STEPS), None if prior is None else type(PRIORS[prior])(), precision)
    for line in found:
        print(f"gpu_check: {line}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
