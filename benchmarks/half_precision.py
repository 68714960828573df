"""bfloat16 against float32 by hand, on a processor that has its instructions: ``python benchmarks/half_precision.py``.

The steps of the white-box attacks as ``attack_steps.py`` has them (64 px, ResNet-18, 8 images, one thread) run in
bfloat16, and after each one the loop by hand takes one in float32; so do the steps of WGAN-GP at 64 px, in batches of
the prior's default size.
The median of the ratios of their CPU seconds counts. Beside each stands the share of the machine's peak: the step's
floating-point operations per second over those of a large matrix product of the same type in the same run.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator

import torch
from attack_steps import CASES, SPEC, compare, race
from by_hand import wgan_gp
from figures import ARGUMENTS, Figure, report, sized
from torch.utils.flop_counter import FlopCounterMode

from mibench.data import Examples
from mibench.precision import computing, has_bfloat16
from mibench.priors.base import PriorData
from mibench.priors.wgan_gp import WganGp
from mibench.storage.checkpoints import Checkpoints

CPU = torch.device("cpu")
ATTACK_LIMIT, PRIOR_LIMIT = 0.6, 0.65
BATCH, PAIRS, WARM = sized(WganGp().batch_size, 2), sized(3, 1), sized(1, 0)
SIDE = sized(2048, 64)


def peak(dtype: torch.dtype) -> float:
    """Return the GFLOP per CPU second of a product of large square matrices, the best of five."""
    a, b = torch.rand(2, SIDE, SIDE).to(dtype)
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        torch.mm(a, b)
        best = min(best, time.process_time() - start)
    return 2 * SIDE**3 / max(best, 1e-9) / 1e9


class Stepped(Checkpoints):
    """Calls a function, in float32, after every step of a training."""

    def __init__(self, after: Callable[[], None]) -> None:
        super().__init__()
        self.after = after

    def steps(self, count: int, label: str, **parts: object) -> Iterator[int]:
        for step in range(count):
            yield step
            with computing("float32", CPU):
                self.after()


def race_prior() -> tuple[list[float], list[float], float]:
    """Return the CPU seconds of steps of the prior ``wgan_gp`` in bfloat16, of those by hand, and the GFLOP of one."""
    torch.manual_seed(0)
    prior, public = WganGp(iterations=WARM + PAIRS, batch_size=BATCH), torch.rand(64, *SPEC.shape)
    network = prior.network(SPEC)
    by_hand, mine, theirs = wgan_gp(public, BATCH), [], []
    with FlopCounterMode(display=False) as counter:
        next(by_hand)
    clock, start = time.process_time, time.process_time()

    def after() -> None:
        nonlocal start
        middle = clock()
        next(by_hand)
        end = clock()
        mine.append(middle - start)
        theirs.append(end - middle)
        start = clock()

    data = PriorData(Examples(public, torch.zeros(len(public), dtype=torch.long)), SPEC, checkpoints=Stepped(after))
    with computing("bfloat16", CPU, network):
        prior.train(network, data, 0, CPU)
    return mine[WARM:], theirs[WARM:], counter.get_total_flops() / 1e9


def measure(names: list[str] | None = None) -> list[Figure]:
    torch.set_num_threads(1)
    there = has_bfloat16(CPU)
    half, full = peak(torch.bfloat16) if there else math.nan, peak(torch.float32)
    figures = [
        Figure(f"product of {SIDE}x{SIDE} matrices, float32", full, "GFLOP/s"),
        Figure(f"product of {SIDE}x{SIDE} matrices, bfloat16", half, "GFLOP/s"),
    ]

    def compared(name: str, mine: list[float], theirs: list[float], flops: float, limit: float) -> None:
        ratio = statistics.median(a / b for a, b in zip(mine, theirs, strict=True))
        shares = [flops / statistics.median(spent) / top for spent, top in ((mine, half), (theirs, full))]
        figures.extend(
            [
                Figure(f"{name} step, bfloat16 / by hand in float32", ratio if there else math.nan, "x", limit),
                Figure(f"{name} step, bfloat16: share of the peak", 100 * shares[0], "%"),
                Figure(f"{name} step, by hand in float32: share of the peak", 100 * shares[1], "%"),
            ]
        )

    chosen = names or list(CASES)
    for name in sized(chosen, chosen[:1]):
        compared(name, *race(CASES[name], "bfloat16"), compare(CASES[name])[1], ATTACK_LIMIT)
    compared("wgan_gp, the prior's", *race_prior(), PRIOR_LIMIT)
    return figures


if __name__ == "__main__":
    raise SystemExit(report(measure(ARGUMENTS)))
