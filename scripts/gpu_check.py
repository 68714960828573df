"""The part of ``scripts/gpu_check.sh`` that compares and measures: ``python scripts/gpu_check.py FOLDER``.

FOLDER holds what the sweeps ``cpu``, ``cuda`` and ``bfloat16`` left. A share may differ from the CPU's by ``SHARE``,
because random streams differ between devices; the accuracies of victim and evaluation models must agree that closely
too. Cells must end alike on all. Steps of three white-box attacks are timed, and must not make the host wait.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch

from mibench.access import Ledger, WhiteBoxView
from mibench.attacks.base import Attack
from mibench.attacks.deepinversion import DeepInversion
from mibench.attacks.gmi import Gmi
from mibench.attacks.kedmi import Kedmi
from mibench.data import InputSpec
from mibench.knowledge import Knowledge
from mibench.leaderboard.shards import read_shard
from mibench.priors.inversion_gan import InversionGan
from mibench.priors.wgan_gp import WganGp
from mibench.targets.resnet18 import ResNet18
from mibench.tasks.class_ import ClassGoal

#: By how much a share in [0, 1] may differ between devices; smoke cells have few targets.
SHARE = 0.34
#: Metrics whose values are shares that hardly depend on random draws.
STEADY = ("target_accuracy",)
KEYS = ["attack", "defense", "metric", "variant", "evaluator"]
STEPS, WARM = 30, 5


def rows(folder: Path) -> pd.DataFrame:
    """Return the rows of a sweep."""
    return pd.concat([read_shard(path) for path in sorted((folder / "results" / "shards").glob("*.parquet"))])


def compare(folder: Path, name: str) -> list[str]:
    """Return what differs between a sweep and the CPU's, a line each."""
    cpu, other = rows(folder / "cpu"), rows(folder / name)
    ends = [
        frame.groupby("attack")["status"].agg(lambda all_of: " ".join(sorted(set(all_of)))) for frame in (cpu, other)
    ]
    both = pd.concat(ends, axis=1, keys=("cpu", name))
    found = [f"{attack}: {row['cpu']} on the CPU, {row[name]} at {name}" for attack, row in both.iterrows()
             if row["cpu"] != row[name]]  # fmt: skip
    steady = [frame[frame["metric"].isin(STEADY) & (frame["status"] == "ok")] for frame in (cpu, other)]
    joined = steady[0].merge(steady[1], on=KEYS, suffixes=("_cpu", "_other"))
    for row in joined.itertuples():
        if abs(row.value_cpu - row.value_other) > SHARE:
            found.append(f"{row.attack}: {row.metric} {row.value_cpu:.2f} on the CPU, {row.value_other:.2f} at {name}")
    print(f"gpu_check: {name}: {len(both)} attacks and {len(joined)} values compared, {len(found)} differences")
    return found


def step(name: str, attack: Attack, prior: object, precision: str) -> list[str]:
    """Time an attack's steps with host synchronisations forbidden between them; return what went wrong."""
    device, spec = torch.device("cuda"), InputSpec("image", (3, 64, 64), classes=16, mirrored=True)
    view = WhiteBoxView.of(ResNet18(spec=spec).eval(), spec, Ledger(), device)
    network = None if prior is None else prior.network(spec).to(device).eval().requires_grad_(False)
    steps, marks = attack.steps, []

    def watched(count: int, what: str = "") -> Iterator[int]:
        for number in steps(count, what):
            if number == WARM:
                torch.cuda.synchronize()
                marks.append(time.perf_counter())
                torch.cuda.set_sync_debug_mode("error")
            yield number
        torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        marks.append(time.perf_counter())

    object.__setattr__(attack, "steps", watched)
    try:
        goal = ClassGoal(torch.arange(16), samples=4)
        result = attack(view, Knowledge(latent_prior=network), goal, seed=0, precision=precision)
    except RuntimeError as error:
        return [f"{name} in {precision}: {str(error).splitlines()[0]}"]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    rate = (STEPS - WARM) / (marks[1] - marks[0])
    print(f"gpu_check: {name} in {precision}: {rate:.1f} steps/s of 64 images, peak {result.peak_memory_mb:.0f} MB")
    return []


def main(folder: Path) -> int:
    """Print what was found and return the exit status."""
    if not torch.cuda.is_available():
        print("gpu_check: there is no CUDA device here, so nothing was checked.", file=sys.stderr)
        return 1
    found = [line for name in ("cuda", "bfloat16") for line in compare(folder, name)]
    for precision in ("float32", "bfloat16"):
        found += step("gmi", Gmi(iterations=STEPS, restarts=1), WganGp(), precision)
        found += step("kedmi", Kedmi(iterations=STEPS), InversionGan(), precision)
        found += step("deepinversion", DeepInversion(iterations=STEPS, batch=64), None, precision)
    for line in found:
        print(f"gpu_check: {line}", file=sys.stderr)
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
