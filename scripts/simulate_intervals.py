"""How often the intervals of mibench err: the two tables of docs/statistics.md, simulated (about two minutes).

``PYTHONPATH=. python scripts/simulate_intervals.py`` prints them. Answers and their controls are drawn alike, so every
lift whose interval lies above zero is a mistake; 2.5 % of them are meant. Beside stands the percentile bootstrap.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mibench.leaderboard.statistics import difference_interval, mean_interval, over_seeds

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int]], Floats]

#: Simulated cells per line, and bootstrap draws of each.
CELLS, DRAWS = 4000, 400

#: By line of the first table how the values of targets are drawn, and whether they are shares.
KINDS: dict[str, tuple[Draw, bool]] = {
    "right or wrong, 5 % right": (lambda rng, size: (rng.random(size) < 0.05).astype(float), True),
    "right or wrong, 30 % right": (lambda rng, size: (rng.random(size) < 0.3).astype(float), True),
    "right or wrong, 80 % right": (lambda rng, size: (rng.random(size) < 0.8).astype(float), True),
    "share of 8 samples, Beta(1, 4) over targets": (lambda rng, size: rng.binomial(8, rng.beta(1, 4, size)) / 8, True),
    "lognormal": (lambda rng, size: rng.lognormal(0, 1, size), False),
    "normal": (lambda rng, size: rng.normal(0, 1, size), False),
}

#: By column of the second table the standard deviations of seed, target and rest.
SPREADS = ((0.0, 1.0, 0.3), (0.2, 1.0, 0.5), (0.5, 0.5, 0.5), (1.0, 0.3, 0.3))


def over_targets(draw: Draw, share: bool, targets: int, seed: int = 0) -> tuple[float, float]:
    """Return the percentages of mistakes of the interval here, and of the percentile bootstrap."""
    rng = np.random.default_rng(seed)
    values, controls = draw(rng, (CELLS, targets)), draw(rng, (CELLS, targets))
    found = [difference_interval(one, other, share)[0] > 0 for one, other in zip(values, controls, strict=True)]
    gains = values - controls
    low = [np.quantile(one[rng.integers(0, targets, (DRAWS, targets))].mean(axis=1), 0.025) for one in gains]
    return 100 * float(np.mean(found)), 100 * float(np.mean(np.array(low) > 0))


def over_both(seeds: int, spreads: tuple[float, float, float], targets: int = 10, seed: int = 0) -> tuple[float, float]:
    """Return the percentages of mistakes of the bootstrap over seeds and targets, and of the interval here."""
    rng = np.random.default_rng(seed)
    of_seed, of_target, rest = spreads
    tables = (
        rng.normal(0, 1, (CELLS, seeds, 1)) * of_seed
        + rng.normal(0, 1, (CELLS, 1, targets)) * of_target
        + rng.normal(0, 1, (CELLS, seeds, targets)) * rest
    )
    found = [over_seeds(one, *mean_interval(one.mean(axis=0))).low > 0 for one in tables]
    low = []
    for one in tables:
        by_seed = rng.multinomial(seeds, [1 / seeds] * seeds, DRAWS) / seeds
        by_target = rng.multinomial(targets, [1 / targets] * targets, DRAWS) / targets
        low.append(np.quantile(np.einsum("ds,st,dt->d", by_seed, one, by_target), 0.025))
    return 100 * float(np.mean(np.array(low) > 0)), 100 * float(np.mean(found))


def main() -> None:
    """Print both tables as Markdown."""
    print("| by target | here, 5 targets | 10 | 30 | percentile bootstrap, 5 | 10 | 30 |\n|" + " --- |" * 7)
    for name, (draw, share) in KINDS.items():
        here, bootstrap = zip(*(over_targets(draw, share, targets) for targets in (5, 10, 30)), strict=True)
        print(f"| {name} | {' | '.join(f'{one:.1f}' for one in (*here, *bootstrap))} |", flush=True)
    print("\n| seeds | " + " | ".join(" : ".join(f"{one:g}" for one in spreads) for spreads in SPREADS) + " |")
    print("|" + " --- |" * (1 + len(SPREADS)))
    for seeds in (2, 3, 5):
        bootstrap, here = zip(*(over_both(seeds, spreads) for spreads in SPREADS), strict=True)
        for name, row in (("bootstrap", bootstrap), ("here", here)):
            print(f"| {seeds}, {name} | {' | '.join(f'{one:.1f}' for one in row)} |", flush=True)


if __name__ == "__main__":
    main()
