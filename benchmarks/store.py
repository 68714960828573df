"""Eight processes that need the same victim from one empty store: ``python benchmarks/store.py``.

A small CNN is trained on the embedded digits by whichever process comes first; all of them pass a barrier when their
imports and data are ready. The wait is wall time, from the end of the training to the last process holding the victim.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path

from figures import Figure, report, sized

PROCESSES = sized(8, 2)
ROUNDS = sized(3, 1)
EPOCHS = sized(10, 1)
LIMIT = 1.0

barrier: Barrier


def meet(ready: Barrier) -> None:
    """Give a worker the barrier; Python passes one only while a process starts."""
    global barrier
    barrier = ready


def need_victim(store: str) -> tuple[float, float, float]:
    """Get the victim; return when, when its training had ended (both in seconds), and how long the training took."""
    import torch

    from mibench.datasets.digits import Digits
    from mibench.defenses.base import Defense
    from mibench.settings.victim import TRAINING_SECONDS, Blueprint, train_central
    from mibench.storage.store import Store
    from mibench.storage.workshop import Workshop
    from mibench.targets.cnn import Cnn
    from mibench.training import Recipe

    class Noting(Defense):
        """No defense; notes when and by whom the training was done."""

        def facts(self) -> dict[str, float | str]:
            with (Path(store).parent / "built").open("a") as file:
                file.write(f"{os.getpid()}\n")
            return {"ended": time.time()}

    torch.set_num_threads(1)
    split = Digits(size=16).load()
    recipe = Recipe(epochs=EPOCHS, batch_size=64, lr=5e-3)
    blueprint = Blueprint("cnn", lambda spec: Cnn(spec=spec, width=16), recipe, {"name": "cnn"})
    workshop = Workshop(Store(store), torch.device("cpu"))
    barrier.wait(120)
    victim = train_central(blueprint, split.private, split, Noting(), workshop, {"role": "victim"}, 0, "victim")
    return time.time(), float(victim.reported["ended"]), victim.facts[TRAINING_SECONDS]


def measure() -> list[Figure]:
    os.environ.update(OMP_NUM_THREADS="1", MIBENCH_PROGRESS="0")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mibench.settings.victim", "mibench.datasets.digits", "mibench.targets.cnn"])
    waits, trained, seconds = [], [], []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="mibench-store-") as folder:
            ready = context.Barrier(PROCESSES)
            with ProcessPoolExecutor(PROCESSES, context, initializer=meet, initargs=(ready,)) as workers:
                told = list(workers.map(need_victim, [f"{folder}/store"] * PROCESSES))
            trained.append(len((Path(folder) / "built").read_text().splitlines()))
        waits.append(max(end for end, _, _ in told) - told[0][1])
        seconds.append(told[0][2])
    return [
        Figure(f"one victim for {PROCESSES} processes: times it was trained, at most", max(trained), "", 1),
        Figure(f"one victim for {PROCESSES} processes: its training", max(seconds), "s"),
        Figure(f"one victim for {PROCESSES} processes: the slowest waits beyond it, at most", max(waits), "s", LIMIT),
    ]


if __name__ == "__main__":
    raise SystemExit(report(measure()))
